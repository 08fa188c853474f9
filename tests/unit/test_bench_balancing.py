"""What the benchmark of balancing says of its rows: the README's table, and what is to be reached."""

from bench.balancing import MAIN, POLICIES, Row, markdown, table


def rows(**p99):
    usual = {name: Row(p50=15, p99=100, worst=110, crossing=0.0, errors=0.0, attempts=1.0) for name in POLICIES}
    rows = usual | {name: Row(15, value, value, 0.0, 0.0, 1.0) for name, value in p99.items()}
    return {(story, name): row for story in MAIN for name, row in rows.items()}


def missed(story, found):
    return [figure.what for figure in table(story, found).figures if figure.holds is False]


def test_each_policy_has_a_row_and_each_story_a_column():
    lines = markdown(rows()).splitlines()
    assert len(lines) == 2 + len(POLICIES)
    assert lines[0].count("|") == lines[1].count("|") == len(MAIN) + 2
    assert "| 15 / 100, 0 % |" in lines[2]


def test_what_failed_stands_out():
    found = rows() | {("loss", "nearest"): Row(1000, 9999, 9999, 0.0, 0.445, 1.0)}
    assert "1000 / 9,999, 0 %, **44.5 %** failed" in markdown(found)


def test_ours_is_to_be_near_the_oracle_and_far_from_health_alone():
    good = rows() | {(story, "health-priority"): Row(900, 9000, 9000, 0.0, 0.0, 1.0) for story in MAIN}
    assert [missed(story, good) for story in MAIN] == [[], [], []]
    assert "p99 of health-priority over ours" in missed("skew", rows())
    assert "p99" in missed("loss", good | {("loss", "dislocate"): Row(15, 141, 141, 0.3, 0.0, 1.0)})


def test_under_balance_nothing_may_cross():
    found = rows() | {("balanced", "dislocate"): Row(15, 100, 100, 0.001, 0.0, 1.0)}
    assert missed("balanced", found) == ["crossing data centers"]
