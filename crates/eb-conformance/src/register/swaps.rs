//! Compare and set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use eb_contract::ErrorKind;
use eb_contract::stores::{MAX_REGISTER_BYTES, REGISTER_HISTORY, RegisterStore};
use futures_util::FutureExt;

use crate::outcome::{ensure, ensure_eq, refused};
use crate::register::{RegisterCase, name};
use crate::{Failure, Outcome};

pub(crate) async fn a_register_that_nobody_wrote_is_none(case: &mut RegisterCase) -> Outcome {
    ensure_eq!(case.store().load(&name("plan")).await?, None, "a register that nobody wrote");
    ensure!(case.store().history(&name("plan"), 10).await?.is_empty(), "it has a history");
    refused("a swap that expects a version", case.swap(1, "x").await, "version_conflict")?;
    ensure_eq!(case.store().load(&name("plan")).await?, None, "what a refused swap has left");
    Ok(())
}

pub(crate) async fn what_is_swapped_in_is_loaded_back_whole(case: &mut RegisterCase) -> Outcome {
    for n in 1..=12 {
        let swapped = case.swap(n - 1, &format!("value {n}")).await?;
        ensure_eq!(swapped.version, n, "the version of swap {n}");
        case.expect(n, &format!("value {n}")).await?;
        let second = case.open.second().await?.load(&name("plan")).await?;
        ensure_eq!(second, Some(swapped), "what another opening sees");
    }
    Ok(())
}

pub(crate) async fn another_version_is_refused_and_named(case: &mut RegisterCase) -> Outcome {
    case.swap(0, "one").await?;
    case.swap(1, "two").await?;
    for expected in [0, 1, 3, u64::MAX] {
        let error = refused("a swap of another version", case.swap(expected, "x").await, "version_conflict")?;
        ensure_eq!(*error.kind(), ErrorKind::VersionConflict { current: 2 }, "the version named");
    }
    case.expect(2, "two").await
}

pub(crate) async fn any_bytes_come_back(case: &mut RegisterCase) -> Outcome {
    let all: Vec<u8> = (0..=255u8).cycle().take(70_000).collect();
    let values = [Bytes::new(), Bytes::from_static(b"\n\n{}\n"), Bytes::from(all)];
    for (version, value) in (0..).zip(values) {
        let swapped = case.store().swap(&name("plan"), version, value.clone(), "ünï \"code\"\n").await?;
        ensure_eq!(swapped.value, value, "the value answered");
        let loaded = case.store().load(&name("plan")).await?;
        ensure_eq!(loaded.map(|v| v.value), Some(value), "the value loaded");
    }
    Ok(())
}

pub(crate) async fn too_large_a_value_or_no_reason_is_refused_and_changes_nothing(
    case: &mut RegisterCase,
) -> Outcome {
    case.swap(0, "one").await?;
    let (store, plan) = (case.store(), name("plan"));
    let large = Bytes::from(vec![b'x'; MAX_REGISTER_BYTES + 1]);
    refused("too large a value", store.swap(&plan, 1, large, "a test").await, "too_large")?;
    for reason in [String::new(), " ".to_owned(), "r".repeat(1025)] {
        let answer = store.swap(&plan, 1, Bytes::from_static(b"x"), &reason).await;
        refused(&format!("a reason of {} characters", reason.len()), answer, "invalid_input")?;
    }
    case.expect(1, "one").await?;
    let largest = Bytes::from(vec![b'x'; MAX_REGISTER_BYTES]);
    store.swap(&plan, 1, largest, &"ä".repeat(1024)).await?;
    Ok(())
}

pub(crate) async fn registers_never_mix(case: &mut RegisterCase) -> Outcome {
    let names = ["a", "A", "a.b", "a-b", "a_b", ".a", "..."];
    let store = case.store();
    for text in names {
        store.swap(&name(text), 0, Bytes::copy_from_slice(text.as_bytes()), "a test").await?;
    }
    for text in names {
        let stands = store.load(&name(text)).await?.map(|v| v.value);
        ensure_eq!(stands, Some(Bytes::copy_from_slice(text.as_bytes())), "the value of {text}");
    }
    Ok(())
}

pub(crate) async fn of_concurrent_swaps_exactly_one_wins_each_version(case: &mut RegisterCase) -> Outcome {
    const EACH: usize = 12;
    let mut tasks = Vec::new();
    for writer in 0..4u8 {
        let store: Arc<dyn RegisterStore> =
            if writer % 2 == 0 { case.store() } else { case.open.second().await? };
        tasks.push(tokio::spawn(async move {
            let mut won = Vec::new();
            while won.len() < EACH {
                let version = store.load(&name("plan")).await?.map_or(0, |v| v.version);
                let value = Bytes::from(format!("{writer}"));
                match store.swap(&name("plan"), version, value, "a race").await {
                    Ok(swapped) => won.push(swapped.version),
                    Err(e) if matches!(e.kind(), ErrorKind::VersionConflict { .. }) => {}
                    Err(e) => return Err(Failure::from(e)),
                }
            }
            Ok(won)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    all.sort_unstable();
    ensure_eq!(all, (1..=4 * EACH as u64).collect::<Vec<_>>(), "the versions that were won");
    Ok(())
}

pub(crate) async fn no_load_shows_an_older_value_than_one_before_it(case: &mut RegisterCase) -> Outcome {
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..3 {
        let (store, done) = (case.open.second().await?, done.clone());
        readers.push(tokio::spawn(async move {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let seen = store.load(&name("plan")).await?;
                let version = seen.as_ref().map_or(0, |v| v.version);
                ensure!(version >= last, "version {version} was shown after {last}");
                if let Some(seen) = seen {
                    ensure_eq!(seen.value, Bytes::from(format!("value {version}")), "a torn value");
                }
                last = version;
            }
            Outcome::Ok(())
        }));
    }
    for n in 0..40 {
        case.swap(n, &format!("value {}", n + 1)).await?;
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await??;
    }
    Ok(())
}

pub(crate) async fn a_dropped_swap_is_done_or_not_done(case: &mut RegisterCase) -> Outcome {
    case.swap(0, "before").await?;
    let mut version = 1;
    for n in 0..10 {
        let value = format!("dropped {n}");
        let (store, plan) = (case.store(), name("plan"));
        // Polled once and given up.
        let _ = store.swap(&plan, version, Bytes::from(value.clone()), "dropped").now_or_never();
        let next = format!("after {n}");
        // Whatever became of it, one of two versions stands.
        let stands = match case.swap(version, &next).await {
            Ok(_) => next,
            Err(e) => {
                let current = version + 1;
                ensure_eq!(*e.kind(), ErrorKind::VersionConflict { current }, "after a dropped swap");
                value
            }
        };
        version += 1;
        case.expect(version, &stands).await?;
    }
    Ok(())
}

pub(crate) async fn everything_is_there_after_reopening(case: &mut RegisterCase) -> Outcome {
    case.swap(0, "one").await?;
    case.swap(1, "two").await?;
    let history = case.store().history(&name("plan"), 10).await?;
    case.open.reopen().await?;
    case.expect(2, "two").await?;
    ensure_eq!(case.store().history(&name("plan"), 10).await?, history, "the history after reopening");
    refused("a stale swap", case.swap(1, "x").await, "version_conflict")?;
    case.swap(2, "three").await?;
    case.expect(3, "three").await
}

pub(crate) async fn the_history_names_the_newest_changes_first(case: &mut RegisterCase) -> Outcome {
    let (store, plan) = (case.store(), name("plan"));
    let count = REGISTER_HISTORY as u64 + 10;
    for n in 0..count {
        store.swap(&plan, n, Bytes::from_static(b"v"), &format!("reason {n}")).await?;
    }
    let all = store.history(&plan, usize::MAX).await?;
    ensure!(all.len() >= REGISTER_HISTORY, "{} changes are kept", all.len());
    for (change, n) in all.iter().zip((0..count).rev()) {
        ensure_eq!(
            (change.version, &change.reason),
            (n + 1, &format!("reason {n}")),
            "the change of version {}",
            n + 1
        );
    }
    ensure_eq!(store.history(&plan, 3).await?, all[..3], "the newest three");
    Ok(())
}

pub(crate) async fn a_probe_leaves_nothing_behind(case: &mut RegisterCase) -> Outcome {
    case.store().probe().await?;
    ensure_eq!(case.store().load(&name("plan")).await?, None, "what a probe has left");
    case.swap(0, "one").await?;
    case.store().probe().await?;
    case.expect(1, "one").await
}
