"""Every constant that shapes behaviour: unit, reason, precedent.  Nanoseconds unless the comment says otherwise."""

from dislocate.core.units import HOUR, MILLISECOND, MINUTE, SECOND

# --- the wire
PROTOCOL = (1, 2)  # lowest and highest version spoken; only ranges that do not overlap are an error
DATAGRAM_BUDGET = 1_150  # bytes before encryption: 1,232 (IPv6 minimum MTU less headers) less salt, nonce and tag
MESSAGE_BUDGET = 64 * 1024  # bytes: a stream's slice, so that one transfer does not hold up a heartbeat

# --- probing (SWIM, with memberlist's LAN profile where nothing else is said)
PROBE_PERIOD = 1 * SECOND  # memberlist and Serf LAN use 1 s: below it, idle CPU grows and silence is noticed no faster
PROBE_TIMEOUT_MIN = 200 * MILLISECOND  # a scheduler's hiccup on a loaded host is shorter
PROBE_TIMEOUT_MAX = 500 * MILLISECOND  # memberlist's fixed timeout
INDIRECT_PROBES = 3  # relays asked when a direct probe stays unanswered (SWIM's k)
NACK_AT = 0.8  # of the relay's own timeout (Lifeguard's paper; memberlist waits 1.0 and loses the race)
HEALTH_MAX = 7  # Lifeguard's local health runs 0..7, so intervals stretch up to eight times

# --- suspicion by silence
SUSPICION_MULTIPLIER = 4  # memberlist LAN: min = 4 * max(1, log10 N) * period
SUSPICION_MAX_FACTOR = 6  # max = 6 * min, decays towards min as others confirm
SUSPICION_CONFIRMATIONS = 3  # K of the paper; fewer where the data center is smaller

# --- refusal
LINK_NEIGHBOURS = 3  # links each agent holds to its ring successors: a death is noticed when the kernel closes them
REFUSAL_WITNESSES = 3  # others asked to verify one refusal
REFUSAL_QUORUM = 2  # refused observers that settle it where N >= 4
REFUSAL_RETRY = 200 * MILLISECOND  # N = 2: the detector's own second refusal after this
CONNECT_TIMEOUT = 500 * MILLISECOND  # in a data center a SYN is answered in well under this, or the host is not there

# --- gossip
GOSSIP_PERIOD = 200 * MILLISECOND  # memberlist LAN
GOSSIP_FANOUT = 3  # members a round; Serf's 'local' profile shows that less loses rumours
RETRANSMIT_MULTIPLIER = 4  # times ceil(log10(N+1)); 2 was measured to lose joins for 10-40 s
REPAIR_MIN_INTERVAL = 1 * SECOND  # per peer, so that two views that must differ for a while do not storm

# --- brake, heal, restart
BRAKE_SHARE = 0.20  # of a data center suspected or refused in one window
BRAKE_MIN = 3  # members at least
BRAKE_RELEASE = 60 * SECOND  # the surviving view has been stable for so long
RECONNECT_PERIOD = 10 * SECOND  # a dead peer or a seed is tried; Serf reconnects every 30 s
DEAD_RETENTION = 72 * HOUR  # Consul's reconnect_timeout
LEFT_RETENTION = 24 * HOUR  # Serf's tombstone_timeout
RESTART_GRACE = 30 * SECOND  # what SIGTERM announces: a package upgrade takes less

# --- services of agents that are gone
UNATTENDED_CRITICAL = 60 * SECOND
UNATTENDED_DROP = 10 * MINUTE

# --- between data centers
RELAYS = 3  # per data center, by rendezvous hash
HEARTBEAT_PERIOD = 1 * SECOND
PHI_WINDOW = 200  # heartbeats remembered
PHI_MIN_STD = 100 * MILLISECOND  # Akka's min-std-deviation: a quiet link must not become nervous
PHI_SUSPECT = 5.0
PHI_UNREACHABLE = 8.0  # Cassandra's convict threshold
UNREACHABLE_FLOOR = 10 * SECOND  # of silence at least
FORWARD_HOPS = 3  # summaries cross at most so many data centers

# --- coordinates (Vivaldi as Serf ships it; dim 8 orders five data centers right, 2 and 4 do not)
VIVALDI_DIMENSIONS = 8
VIVALDI_SAMPLES = 80  # not used before
VIVALDI_ERROR = 0.2  # nor while the error is above

# --- health
SUCCESSES_UP = 2
FAILURES_DOWN = 3
CHECK_JITTER = 0.1  # of the interval, either way
FLAP_HALF_LIFE = 60 * SECOND
FLAP_SUPPRESS = 3.0
FLAP_REUSE = 1.0
LOAD_LEVELS = 16  # utilization is quantized: a change of less than 1/16 is not worth a rumour
LOAD_MIN_INTERVAL = 1 * SECOND  # between two notes about one instance
STARTING_PACE = 500 * MILLISECOND  # a fresh instance is checked at least so often: up within a second of being ready
CHECK_MIN_PAUSE = 100 * MILLISECOND  # between the end of a slow check and the next one

# --- catalog
INSTANCES_PER_OWNER = 1_000  # more on one host is a mistake of a script; bounds what an owner costs everybody
RECORD_BUDGET = 900  # bytes of one encoded record or manifest part: it fits a datagram next to the envelope
SPEC_BUDGET = 448  # bytes of id, service, address, tags, meta; a record's rest: owner 140, cause 200, address 45
CAUSE_LIMIT = 200  # bytes
UNKNOWN_OWNERS = 4_096  # owners without a member entry that are listened to; the oldest are dropped
UNKNOWN_GRACE = 60 * SECOND  # for the member entry of an owner to arrive: gossip takes a second, repair a few
BRAKE_RECHECK = 10 * SECOND  # a removal that the brake holds is tried again
SAVE_PERIOD = 5 * SECOND  # others' records go to disk at most so often: they are a convenience after a restart
SAVE_BATCH = 200  # owners written at once, so that a join does not fill the disk's queue
HEARD_PERIOD = 60 * SECOND  # the disk is told that all is still current: the error of an age after a restart
VIEW_REUSE = 100 * MILLISECOND  # an answer is reused so long; it looks older than it is, never fresher
EMPTY_SERVICES = 10_000  # names without instances whose index is remembered, least recently changed dropped
DRAIN_ORDERS = 1_000  # targets remembered
DRAIN_RETENTION = 7 * 24 * HOUR  # an ended order still refutes an older one

# --- history and watches
HISTORY_PER_SUBJECT = 50  # entries
HISTORY_SUBJECTS = 2_000  # least recently touched are dropped

# --- the store on a server
LOG_KEPT = 5_000  # applied entries kept for followers that are a little behind; etcd keeps 5,000 too
LOG_KEPT_BYTES = 16 << 20  # and at most so many bytes of them
LOG_HELD = 50_000  # entries kept for who is known to need them, such as who takes a snapshot: a minute of a busy store
LOG_HELD_BYTES = 64 << 20  # and at most so many bytes: a whole store, so that another snapshot is no more
STATE_SAVE_PERIOD = (
    5 * SECOND
)  # the applied state goes to disk at most so often: the log has it meanwhile, and a key that
# changes often is written once
AUDIT_EVERY = 256  # entries between two digests that are kept for comparison: the same indexes on every server
AUDIT_KEPT = 16  # digests: a server that is less than 4,096 entries behind or ahead still compares
AUDIT_TOLD_EVERY = 1_024  # entries after which the leader tells its digest
AUDIT_PERIOD = 10 * SECOND  # or after so long, if there is a new one
PROPOSALS_WAIT = (
    3 * MILLISECOND
)  # for the save under way, so that one takes what else two would; an fsync takes 0.2 to 2
RETRY_FULL = 1 * SECOND  # a disk that was full is tried again: df and rm take that long
STATE_SAVE_ENTRIES = 20_000  # or after so many entries, which a start applies again, 20 us each
STATE_SAVE_RECORDS = (
    2_000  # or after so many changed keys, 10 us each: nothing else is done while they are put together
)

# --- asking the store
ASK_WITHIN = 9 * SECOND  # an answer, or why there is none: a second before the edge gives up
ASK_RETRY_MIN = 50 * MILLISECOND  # an election on loopback takes that long
ASK_RETRY_MAX = 1 * SECOND
ASK_SILENCE = 3 * SECOND  # without an answer on an open link: asked again, elsewhere where that is possible
ASKS_AT_ONCE = 4_096  # of one agent: bounds what it keeps
CHANGE_WITHIN = 60 * SECOND  # the same for changes of servers and for backups: a newcomer is given up after as long
RESTORE_WINDOW = 16  # parts of a restore under way: 750 KiB, so over 400 ms of RTT that is 1.9 MB/s
RESTORE_PACE = 64 * 1024  # bytes a second below which no restore goes on: a window within ASK_WITHIN is more than that
SHUNNED_FOR = 2 * SECOND  # a server that could not help is asked last: it may be well again after an election
LEADERLESS = 3 * SECOND  # for so long a write waits for an election; after that it is refused at once
# --- the replicated store: what may be in it (etcd's limits are 1.5 MiB a request, 128 operations, 2 GiB; ours is smaller
# because it is held in the memory of a Python process, once a server).  What an entry does depends on these numbers, up to
# RESTORE_PATIENCE: servers must agree on them, so another number needs another FEATURE_LEVEL.
KEY_BYTES = 512  # of UTF-8: a path of a dozen labels
VALUE_BYTES = 256 * 1024  # a rendered configuration file; what is larger belongs elsewhere, with its hash here
TRANSACTION_OPERATIONS = 128  # etcd's --max-txn-ops; compares count on their own
TRANSACTION_BYTES = 512 * 1024  # of keys and values: eight fragments on a link, so that one cannot hold up an election
TRANSACTION_KEYS = 10_000  # that one transaction may read or remove by prefixes: some 50 ms of every server's time
TRANSACTION_ANSWER = 2 * 1024 * 1024  # bytes of keys and values in one answer: half of what a link's queue holds
STORE_BYTES = 64 * 1024 * 1024  # of keys and values
STORE_KEYS = 1_000_000  # each costs some 330 bytes besides its text and value
LEASES = 100_000  # one a host of the largest fleet, and as many again for locks
LEASE_KEYS = 10_000  # that end with one lease: they are deleted in one step
LEASE_TTL_MIN = 1 * SECOND  # below it, an election ends every lease
LEASE_TTL_MAX = 7 * 24 * HOUR  # what nobody looks after for a week is forgotten
READ_LIMIT = 10_000  # keys in one answer; more are asked for in pages
QUOTAS = 100  # prefixes with a quota of their own

# --- the replicated store: what it remembers besides its keys
SESSIONS = 10_000  # agents whose last askings are known; one entry an agent
SESSION_RESULTS = 1_024  # a session: as many askings may be under way at once
SESSION_RESULT_BYTES = 4 * 1024  # of one kept result; a larger one is not kept, and a repetition is told so
SESSION_BYTES = 32 * 1024 * 1024  # of all kept, some 80,000 puts; the sessions not used for longest go first
RESTORE_BYTES = 128 * 1024 * 1024  # a backup of the fullest store: 64 MiB, and 1 M times 60 bytes
RESTORE_PATIENCE = 10_000  # entries after which a restore that does not go on is given up
CHANGES_KEPT = 20_000  # for watches: some seconds at full load, and a watcher that was away for a round trip needs less
CHANGES_BYTES = 8 * 1024 * 1024  # of the same: 20,000 values may be large
WATCH_ANSWER = 2 * 1024 * 1024  # bytes of changes in one answer: half of what a link's queue holds
CHANGES_AGE = 10 * MINUTE  # Kubernetes compacts etcd after 5 minutes; a restart of an agent takes less
SNAPSHOT_CHUNK = 48 * 1024  # bytes: a message with its envelope stays below MESSAGE_BUDGET
FEATURE_LEVEL = 3  # the highest whose commands this version applies
RUNS_LEVEL = 2  # from which on the log may hold commands of config runs
SCALE_LEVEL = 3  # the same for commands of scaling
RECOVERY_STEP = 1 << 40  # revisions that a forced recovery leaves out: more than were lost; 8,191 fit below 2^53 (JSON)
RECOVERY_RUNS = (
    10_000  # run ids, and epochs of a run, that it leaves out: more than were begun while this server was away
)

# --- consensus
RAFT_HEARTBEAT = 100 * MILLISECOND  # etcd's default; longer where the RTT is longer
ELECTION_FLOOR = 1 * SECOND  # etcd's default; a busy host stands still for less
ELECTION_CEILING = 10 * SECOND  # nobody waits longer for a leader, however far the servers are from each other
ELECTION_RTT_FACTOR = 10  # etcd's advice: ten round trips of silence are no jitter
REFUSAL_SPREAD = 50 * MILLISECOND  # besides 2 RTT: those that saw the leader refused do not all ask at once
APPEND_BUDGET = 48 * 1024  # bytes of entries a message aims at: below a message's 64 KiB with what is around them
INFLIGHT_MESSAGES = 256  # appends under way to one follower, as in etcd
INFLIGHT_BYTES = 4 * 1024 * 1024  # over 400 ms of RTT that is 10 MB/s
UNCOMMITTED_BYTES = 8 * 1024 * 1024  # proposals that wait for a majority; then the asker waits, not the memory
COMMIT_TOLD_WITHIN = 10 * MILLISECOND  # followers serve watchers: they need not wait for the next heartbeat
SNAPSHOT_WINDOW = 8 * 48 * 1024  # bytes of a snapshot under way to one follower: a heartbeat gets through in between
SNAPSHOT_PATIENCE = 60 * SECOND  # a snapshot for a server that is silent so long is forgotten
SNAPSHOT_ASKED_AGAIN = 5 * SECOND  # chunks without an answer are sent anew, a snapshot not offered is wanted again
SLOW_SAVE = 500 * MILLISECOND  # a leader whose disk takes longer hands over, if somebody is faster
SAVE_REMEMBERED = 10 * SECOND  # a disk is judged by its recent saves: one that was slow an hour ago may be mended
BETTER_PLACED_FOR = 60 * SECOND  # before a leader hands over to a server nearer to the others
BETTER_PLACED_FACTOR = 1.5  # what counts as nearer: own > 1.5 x theirs + the margin
BETTER_PLACED_MARGIN = 10 * MILLISECOND  # within one data center nobody is worth an election
CATCH_UP_PATIENCE = 60 * SECOND  # a change whose newcomers get nowhere for so long is called off

# --- config runs
GRANT_VALID = 10 * SECOND  # a node begins so long after it asked, or asks anew: longer than an election and its answer
RUN_TICK = 500 * MILLISECOND  # how often the controller looks at health and clocks; news wake it at once
NODE_GONE = 5 * SECOND  # out of reach for so long: UNREACHABLE or UNKNOWN; shorter is a blip that would pause a run
SPEC_BYTES = 192 * 1024  # of a specification with its sources: it is one value of the store, with room for its keys
SECRET_BYTES = 16 * 1024  # of a secret: a key with its chain of certificates
RUN_NODES = 5_000  # targets of one run: its plan is one value too
RUNS_KEPT = 1_000  # that are over; the oldest go
RUN_TASKS_KEPT = 50_000  # nodes' parts in runs that are over; with 5,000 targets each, ten runs
RUNS_UNDER_WAY = 64  # at once: every agent follows all of them, and each start is compared with each
RUNS_ROOM = 4 * 1024 * 1024  # above STORE_BYTES, for what must not wait: a pause, an abort, what a node did
RUN_AUDIT_KEPT = 20_000  # entries, some 8 MiB; the oldest go, and the chain begins with the first that is left
RUN_WORDS = 1_000  # characters of why something was done
REPORT_BYTES = 16 * 1024  # of what one node reports: what it writes in full is in its own log
GATE_PATIENCE = 3  # windows within which a gate holds for one, or its next failing reading counts: some flap for ever
RUN_RETRY = 2 * SECOND  # a step that nothing came of is decided anew: longer than a commit over the longest links

# --- scaling
SCALE_LOOK = 5 * SECOND  # how often the leader looks: boots take longer, and means of 15 s change no faster
SCALE_RETRY = 5 * SECOND  # a decision that nothing came of is made anew: longer than a commit over the longest links
SCALE_PAST = 50  # decisions kept, of each service and data center; what the log does depends on it
SCALE_WORDS = 500  # characters of why, and of what came of it; what the log does depends on it
SCALE_POLICIES = 1_000  # that the leader looks after; further ones are not decided, and it says so
SCALE_NODE_GONE = 60 * SECOND  # its instances are started elsewhere then: an agent that restarts is back before
CARRY_RETRY_MIN = 5 * SECOND  # what failed is tried again so much later, doubled each time
CARRY_RETRY_MAX = 5 * MINUTE
CARRY_LOOK = 10 * SECOND  # how often a relay looks whether what another one took upon itself was done

# --- balancing: what callers tell, and how it is gathered
CALLER_GONE = 5 * SECOND  # a caller tells each second; five missed words are no hiccup any more
CALLERS = 4_096  # of one agent that are listened to: processes of one host
CALLER_BYTES = 128  # of a caller's name
USAGES_TOLD = 1_000  # services in one report
OUTCOMES_TOLD = 64  # instances in one usage: those called most say nearly all, and a report stays a few KiB
CALLER_RATE_LIMIT = 1e6  # requests a second of one caller: a pick takes it a microsecond
RATE_LIMIT = 1e9  # requests a second of a host or a data center: more is no measurement
LOAD_RATE_LIMIT = 1e6  # requests a second of one instance: no server of one host answers more
LOAD_IN_FLIGHT_LIMIT = 10**6  # requests at one instance at a time
FLOW_PERIOD = 1 * SECOND  # the exchange that the measured policies were simulated with
USAGE_GONE = 3 * SECOND  # what a node of ours offered counts so long: two lost datagrams are bridged

# --- balancing: endpoints
PANIC_BELOW = 0.5  # Envoy's healthy panic threshold
SLOW_START_LEAST = 0.1  # Envoy's floor: below it a fresh endpoint would see nothing to warm up with

# --- balancing: flows (research 3.1; the values are those that its figures were measured with, where nothing else is said)
DEMAND_SMOOTHING = 0.3  # of a second's demand: three seconds say most of a step
CAPACITY_SMOOTHING = 0.2  # of what one endpoint carries: a property of its code, which changes slowly
MEASURED_FROM = 0.2  # utilization below which a rate says nothing of capacity (gRPC's A58 has an epsilon there)
SATURATED_FROM = 0.9  # utilization above which requests wait, so that those in flight say nothing of concurrency
BELIEVED = 4.0  # times the lower median of its peers: machines that share a weight differ by less
BELIEVED_OF_IDLE = 10.0  # the same where most peers idle: what they say is an order of magnitude
HINT_FROM = 0.02  # utilization below which a rate says not even that
BELIEVED_OF_DATACENTER = 10.0  # times the lower median of all: they run the same program
BACKLOG_DRAIN = 2 * SECOND  # what waits is to be worked off in this time
CAPACITY_LEAST = 1.0  # requests a second: a backlog makes a place that lives small, never nothing
RHO_MARGIN = 0.02  # above the load of the whole, so that every place gets rid of what waits
COST_CLASS = 1 * MILLISECOND  # costs that differ by less are equal: a LAN's and a WAN's jitter
COST_CLASS_PARTS = 10  # or by less than a tenth
REPORT_HALVES = 10 * SECOND  # a report that is older counts half, and half again: UNREACHABLE_FLOOR is as long
SHARE_GAIN = 0.5  # a second: faster overshoots a loop of two seconds, slower leaves a skew where it is
SHARE_STEP = 0.01  # a smaller change is not worth a word
FLOW_LEAST = 0.02  # a foreign flow that would be smaller
FLOW_KEPT = 10 * SECOND  # for so long ends; until then its connections and caches stay warm
FLOW_MOVED = 0.05  # a number that moved by less is not told: 95 % of a thousand requests' noise is below
FLOW_REPEAT = 2 * SECOND  # between two reports while somebody calls
FLOW_FRESH = 3 * SECOND  # a row that is older is not followed any more: a repetition and a hop late
FLOW_REACTION = 50 * MILLISECOND  # after a death: those of one host come together; 200 ms were measured to be enough
FLOW_PAUSE = 200 * MILLISECOND  # between two reactions: a storm of deaths is a handful of rows
FLOW_FORGOTTEN = 60 * SECOND  # nobody called for so long: the catalog alone speaks of the service again
FLOW_SERVICES = 2_000  # that are called at the same time; those beyond go to the nearest data center
FLOWS_PROTOCOL = 2  # who speaks less understands no flows: nothing of them is said to it
FIT_LOAD = (
    0.95  # others may be loaded so far before a drain is refused (AWS's zonal shift asks for capacity beforehand)
)

# --- balancing: how calls to an instance go
CALLS_KEPT = 0.9  # of a second's calls, the next second: some ten seconds count
CALLS_SMOOTHING = 0.3  # of a second's p99
CALLS_GONE = 10 * SECOND  # nobody says anything: nobody calls
ERRORS_STEP = 0.005  # ratio of failed calls: gates look for whole percents
LATENCY_STEP = 0.001  # seconds: a millisecond is what a WAN varies by
SLOW_START_LONGEST = 10 * MINUTE  # that a policy may ask for: what warms up longer has a check of its own for that
SLOW_START_SETTLED = 30 * SECOND  # after a start, what is up when first heard of has been up before
FLOW_IDLE_PERIOD = 10 * SECOND  # of an agent without callers that is no relay: it only forgets what is over
RTT_UNKNOWN = 400 * MILLISECOND  # a data center within reach whose distance is not known: as far as the farthest are
