//! The baselines: what the device and the kernel do without a bus.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use crate::measure::{Result, Sample};

/// Appends `records` records of `bytes` to a growing file, `per_sync` of them with one `write`, then `fdatasync`.
pub(crate) fn write_and_sync(folder: &Path, records: u64, bytes: usize, per_sync: u64) -> Result<Sample> {
    let mut file = OpenOptions::new().create_new(true).append(true).open(folder.join("raw"))?;
    let mut group = vec![b'x'; bytes * usize::try_from(per_sync)?];
    group.chunks_mut(bytes).for_each(|line| line[bytes - 1] = b'\n');
    let groups = records / per_sync;
    let mut latencies = Vec::with_capacity(usize::try_from(groups)?);
    let started = Instant::now();
    for _ in 0..groups {
        let one = Instant::now();
        file.write_all(&group)?;
        file.sync_data()?;
        latencies.push(one.elapsed());
    }
    Ok(Sample::new(groups * per_sync, started.elapsed()).latencies(latencies))
}

/// Reads a file in blocks and finds every newline; nothing else.
pub(crate) fn scan_lines(file: &Path, block: usize) -> Result<Sample> {
    let mut file = File::open(file)?;
    let mut buffer = vec![0u8; block];
    let mut lines = 0u64;
    let started = Instant::now();
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        lines += memchr::memchr_iter(b'\n', &buffer[..n]).count() as u64;
    }
    Ok(Sample::new(lines, started.elapsed()))
}
