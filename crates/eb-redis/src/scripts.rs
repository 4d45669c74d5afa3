//! The scripts that run on the server: each is applied as a whole, also through a crash.

/// Appends a group in order; stops at the first entry that is refused.
///
/// `KEYS`: stream, topic hash. `ARGV`: incarnation, then key and envelope of each record. Answers `ok`, or what stopped
/// it (`incarnation`, `gone` for a stream that is not there, or the server's error), and the ids of what was appended.
pub(crate) const APPEND: &str = r"
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return {'incarnation'} end
local out = {'ok'}
for i = 2, #ARGV, 2 do
  local id = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', '*', 'k', ARGV[i], 'e', ARGV[i + 1])
  if type(id) ~= 'string' then
    out[1] = id and id.err or 'gone'
    return out
  end
  out[#out + 1] = id
end
return out
";

/// Makes a topic unless it is there.
///
/// `KEYS`: list of topics, topic hash, streams. `ARGV`: topic, number of partitions, a new incarnation. Answers `ok`;
/// `exists` and the number it has; `missing` and the stream that a topic should have; or `stray` and a stream with
/// entries that no topic has. Streams without entries are left of nothing but an attempt, and taken.
pub(crate) const CREATE: &str = r"
local have = redis.call('HGET', KEYS[2], 'partitions')
if have then
  if have ~= ARGV[2] then return {'exists', have} end
  for i = 3, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 0 then return {'missing', KEYS[i]} end
  end
  redis.call('SADD', KEYS[1], ARGV[1])
  return {'ok'}
end
for i = 3, #KEYS do
  if redis.call('XLEN', KEYS[i]) > 0 then return {'stray', KEYS[i]} end
end
for i = 3, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('XGROUP', 'CREATE', KEYS[i], 'made', '0', 'MKSTREAM')
    redis.call('XGROUP', 'DESTROY', KEYS[i], 'made')
  end
end
redis.call('HSET', KEYS[2], 'partitions', ARGV[2], 'incarnation', ARGV[3])
redis.call('SADD', KEYS[1], ARGV[1])
return {'ok'}
";

/// Deletes the entries before an id, and writes down up to where.
///
/// `KEYS`: stream, topic hash. `ARGV`: incarnation, the id, the partition. Answers `ok` and how many went, or
/// `incarnation`. `horizon:<n>` is the last entry deleted, `gone:<n>` how many are gone in all: as long as the stream's
/// own count agrees, nobody else has deleted anything since.
pub(crate) const TRIM: &str = r"
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return {'incarnation', 0} end
local last = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[2], '-', 'COUNT', 1)
local count = redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[2])
if count > 0 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  local of = {}
  for i = 1, #info, 2 do of[info[i]] = info[i + 1] end
  local gone = string.format('%.0f', of['entries-added'] - of['length'])
  redis.call('HSET', KEYS[2], 'horizon:' .. ARGV[3], last[1][1], 'gone:' .. ARGV[3], gone)
end
return {'ok', count}
";

/// Hands a member of a group what nobody was handed before.
///
/// `KEYS`: stream, topic hash. `ARGV`: incarnation, group, member, how many, and how many records were deleted in all when the
/// caller looked at the horizon. Answers `ok`, the entries, and the stream's last id; `look` where records were deleted
/// since, for some of them may be records that nobody was handed; or `incarnation`.
pub(crate) const GROUP_NEXT: &str = r"
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return {'incarnation'} end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local of = {}
for i = 1, #info, 2 do of[info[i]] = info[i + 1] end
if string.format('%.0f', of['entries-added'] - of['length']) ~= ARGV[5] then return {'look'} end
local read = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[1], '>')
return {'ok', read and read[1][2] or {}, of['last-generated-id']}
";

/// Reads a member's own pending records behind an id.
///
/// `KEYS`: stream, topic hash. `ARGV`: incarnation, group, member, the id, how many. Answers `ok`, the entries and their
/// lines of `XPENDING`; `gone` and the id of one whose entry was deleted; or `incarnation`.
pub(crate) const GROUP_PENDING: &str = r"
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return {'incarnation'} end
local read = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[5], 'STREAMS', KEYS[1], ARGV[4])
local entries = read and read[1][2] or {}
for i = 1, #entries do
  if not entries[i][2] then return {'gone', entries[i][1]} end
end
if #entries == 0 then return {'ok', {}, {}} end
local first, last = entries[1][1], entries[#entries][1]
return {'ok', entries, redis.call('XPENDING', KEYS[1], ARGV[2], first, last, #entries, ARGV[3])}
";

/// Gives pending records of others to a member, if they are all there.
///
/// `KEYS`: stream, topic hash. `ARGV`: incarnation, group, member, for how many milliseconds they must have been idle, their
/// ids. Answers as [`GROUP_PENDING`]; those that somebody else was quicker with are left out.
pub(crate) const GROUP_CLAIM: &str = r"
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return {'incarnation'} end
for i = 5, #ARGV do
  local held = redis.call('XPENDING', KEYS[1], ARGV[2], ARGV[i], ARGV[i], 1)
  if #held == 1 and #redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i]) == 0 then return {'gone', ARGV[i]} end
end
local entries, counts = {}, {}
for i = 5, #ARGV do
  local claimed = redis.call('XCLAIM', KEYS[1], ARGV[2], ARGV[3], ARGV[4], ARGV[i])
  if #claimed == 1 then
    entries[#entries + 1] = claimed[1]
    counts[#counts + 1] = redis.call('XPENDING', KEYS[1], ARGV[2], ARGV[i], ARGV[i], 1)[1]
  end
end
return {'ok', entries, counts}
";

/// Begins the idle time of a member's own pending records anew.
///
/// `KEYS`: stream, topic hash. `ARGV`: incarnation, group, member, their ids. Answers `ok`, or `incarnation`. Those that the
/// member does not hold any more are left alone.
pub(crate) const GROUP_KEEP: &str = r"
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return {'incarnation'} end
for i = 4, #ARGV do
  if #redis.call('XPENDING', KEYS[1], ARGV[2], ARGV[i], ARGV[i], 1, ARGV[3]) == 1
    and #redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i]) == 1 then
    redis.call('XCLAIM', KEYS[1], ARGV[2], ARGV[3], 0, ARGV[i], 'JUSTID')
  end
end
return {'ok'}
";

/// The names that the server gave to the scripts when it was handed them over a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) append: String,
    pub(crate) create: String,
    pub(crate) trim: String,
    pub(crate) next: String,
    pub(crate) pending: String,
    pub(crate) claim: String,
    pub(crate) keep: String,
}

/// All scripts, in the order of [`Loaded`].
pub(crate) const ALL: [&str; 7] = [APPEND, CREATE, TRIM, GROUP_NEXT, GROUP_PENDING, GROUP_CLAIM, GROUP_KEEP];
