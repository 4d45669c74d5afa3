//! The scripts that run on the server: each is applied as a whole, also through a crash.

/// A function of a script that reads a group's entries for a member until there are so many, or another as large as the largest
/// would be too much for so many bytes. Sizes are known only once entries are read, so they are read by eights: that many may
/// go beyond the bytes. `from` is `>` or the id behind which pending ones are read. A second result is the id of
/// a pending one whose entry was deleted.
macro_rules! within_bytes {
    () => {
        r"
local function within(most, bytes, from)
  local entries, room, largest, count = {}, tonumber(bytes), 1, 1
  most = tonumber(most)
  while #entries < most do
    count = math.min(count, most - #entries)
    local read = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', count, 'STREAMS', KEYS[1], from)
    local new = read and read[1][2] or {}
    for i = 1, #new do
      if not new[i][2] then return entries, new[i][1] end
      local size = 0
      for _, part in ipairs(new[i][2]) do size = size + #part end
      room, largest = room - size, math.max(largest, size)
      entries[#entries + 1] = new[i]
    end
    if #new < count or room < largest then break end
    if from ~= '>' then from = new[#new][1] end
    count = math.min(8, math.floor(room / largest))
  end
  return entries
end
"
    };
}

/// Appends a group in order; stops at the first entry that is refused.
///
/// `KEYS`: stream, topic hash. `ARGV`: incarnation, the last id that is known to be there (or nothing), then key and envelope of each
/// record. Answers `ok`, or what stopped it (`incarnation`, `gone` for a stream that is not there, `lost` and the stream's last id
/// where it lies below the known one, or the server's error), and the ids of what was appended. Ids are compared as texts:
/// numbers of 64 bits do not fit into those of Lua.
pub(crate) const APPEND: &str = r"
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return {'incarnation'} end
if ARGV[2] ~= '' then
  local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
  if info.err then return {string.find(info.err, 'no such key', 1, true) and 'gone' or info.err} end
  local last
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] break end
  end
  local function padded(id)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    return string.rep('0', 20 - #ms) .. ms .. string.rep('0', 20 - #seq) .. seq
  end
  if padded(last) < padded(ARGV[2]) then return {'lost', last} end
end
local out = {'ok'}
for i = 3, #ARGV, 2 do
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
/// `KEYS`: stream, topic hash. `ARGV`: incarnation, group, member, how many, how many bytes, and how many records were deleted in all
/// when the caller looked at the horizon. Answers `ok`, the entries, and the stream's last id; `look` where records were deleted
/// since, for some of them may be records that nobody was handed; or `incarnation`.
pub(crate) const GROUP_NEXT: &str = concat!(
    r"
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return {'incarnation'} end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local of = {}
for i = 1, #info, 2 do of[info[i]] = info[i + 1] end
if string.format('%.0f', of['entries-added'] - of['length']) ~= ARGV[6] then return {'look'} end
",
    within_bytes!(),
    r"
local entries = within(ARGV[4], ARGV[5], '>')
return {'ok', entries, of['last-generated-id']}
"
);

/// Reads a member's own pending records behind an id.
///
/// `KEYS`: stream, topic hash. `ARGV`: incarnation, group, member, how many, how many bytes, and the id. Answers `ok`, the entries and
/// their lines of `XPENDING`; `gone` and the id of one whose entry was deleted; or `incarnation`.
pub(crate) const GROUP_PENDING: &str = concat!(
    r"
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return {'incarnation'} end
",
    within_bytes!(),
    r"
local entries, gone = within(ARGV[4], ARGV[5], ARGV[6])
if gone then return {'gone', gone} end
if #entries == 0 then return {'ok', {}, {}} end
local first, last = entries[1][1], entries[#entries][1]
return {'ok', entries, redis.call('XPENDING', KEYS[1], ARGV[2], first, last, #entries, ARGV[3])}
"
);

/// Gives pending records of others to a member, if they are all there.
///
/// `KEYS`: stream, topic hash. `ARGV`: incarnation, group, member, for how many milliseconds they must have been idle, how many
/// bytes, their ids. Answers as [`GROUP_PENDING`]; those that somebody else was quicker with are left out, and those that there is
/// no room for.
pub(crate) const GROUP_CLAIM: &str = r"
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return {'incarnation'} end
for i = 6, #ARGV do
  local held = redis.call('XPENDING', KEYS[1], ARGV[2], ARGV[i], ARGV[i], 1)
  if #held == 1 and #redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i]) == 0 then return {'gone', ARGV[i]} end
end
local entries, counts, room = {}, {}, tonumber(ARGV[5])
for i = 6, #ARGV do
  local claimed = redis.call('XCLAIM', KEYS[1], ARGV[2], ARGV[3], ARGV[4], ARGV[i])
  if #claimed == 1 then
    entries[#entries + 1] = claimed[1]
    counts[#counts + 1] = redis.call('XPENDING', KEYS[1], ARGV[2], ARGV[i], ARGV[i], 1)[1]
    for _, part in ipairs(claimed[1][2]) do room = room - #part end
    if room <= 0 then break end
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
