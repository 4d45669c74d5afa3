//! Blocking work off the caller's runtime, whatever runtime that is.
//!
//! A few threads are started when they are needed and leave when they have been idle for a while. Work that is handed in is
//! done even if nobody waits for its result any more.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use eb_contract::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};

/// Reads wait for the disk more than they compute, so a few more threads than cores are of use, and many are not.
const MAX_THREADS: usize = 16;
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Pool {
    state: Mutex<PoolState>,
    work: Condvar,
}

#[derive(Default)]
struct PoolState {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

fn pool() -> &'static Arc<Pool> {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    POOL.get_or_init(Arc::default)
}

/// Runs `work` on a thread of the pool. Dropping the future does not stop the work, only its answer.
///
/// # Errors
/// The work's own; `Unavailable` when no thread can be started or the work panicked.
pub fn offload<T, F>(op: &'static str, work: F) -> Offload<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let answer = Arc::new(Mutex::new(Answer { value: None, waker: None, abandoned: false }));
    let promise = Promise { op, answer: Some(answer.clone()) };
    pool().submit(Box::new(move || promise.keep(work())));
    Offload { answer }
}

impl Pool {
    fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            self.work.notify_one();
        } else if state.threads < MAX_THREADS {
            let pool = self.clone();
            match thread::Builder::new().name("eb-disk io".to_owned()).spawn(move || pool.run()) {
                Ok(_) => state.threads += 1,
                // Without any thread nobody will ever come: dropping the job answers its future with an error.
                Err(_) if state.threads == 0 => {
                    let job = state.jobs.pop_back();
                    drop(state);
                    drop(job);
                }
                Err(_) => {}
            }
        }
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A job that panics has answered through its promise; the thread goes on.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let timed_out = self.work.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

struct Answer<T> {
    value: Option<Result<T>>,
    waker: Option<Waker>,
    abandoned: bool,
}

/// Answers exactly once, also when the job is dropped unrun or panics.
struct Promise<T> {
    op: &'static str,
    answer: Option<Arc<Mutex<Answer<T>>>>,
}

impl<T> Promise<T> {
    fn keep(mut self, value: Result<T>) {
        self.set(value);
    }

    fn set(&mut self, value: Result<T>) {
        let Some(answer) = self.answer.take() else { return };
        let mut answer = answer.lock();
        if !answer.abandoned {
            answer.value = Some(value);
        }
        let waker = answer.waker.take();
        drop(answer);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if self.answer.is_some() {
            let what = "the thread for blocking work could not be started, or the work panicked";
            self.set(Err(Error::new(ErrorKind::Unavailable, self.op, what)));
        }
    }
}

/// The answer to come from [`offload`].
pub struct Offload<T> {
    answer: Arc<Mutex<Answer<T>>>,
}

impl<T> Future for Offload<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let mut answer = self.answer.lock();
        match answer.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                answer.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Offload<T> {
    fn drop(&mut self) {
        let mut answer = self.answer.lock();
        answer.abandoned = true;
        answer.value = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn work_is_answered_in_any_number_and_from_any_executor() {
        let all = (0..200).map(|i| offload("test", move || Ok(i * 2)));
        let answers: Vec<i32> = block_on(join_all(all)).into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (0..200).map(|i| i * 2).collect::<Vec<_>>());
    }

    #[test]
    fn work_that_panics_is_an_error_and_does_not_take_the_pool_along() {
        let panicked = block_on(offload::<(), _>("test", || panic!("on purpose")));
        assert_eq!(*panicked.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(block_on(offload("test", || Ok(1))).unwrap(), 1);
    }
}
