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

/// The names that the server gave to the scripts when it was handed them over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) append: String,
    pub(crate) create: String,
    pub(crate) trim: String,
}
