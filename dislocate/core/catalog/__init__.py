"""What runs where, how well, and how old that knowledge is."""
