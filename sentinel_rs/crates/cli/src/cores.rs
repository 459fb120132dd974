//! Independent pieces of work on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;

/// Progress is told so often at most; for so long nobody wonders whether anything goes on.
const QUIET: Duration = Duration::from_secs(2);

/// The results of `work` for the numbers below `count`, in their order, whichever core is done first. When it takes long, says
/// on standard error how far it is.
pub fn on_all_cores<T: Send>(
    what: &str,
    count: usize,
    work: impl Fn(usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(count);
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    let nothing: Vec<Option<anyhow::Result<T>>> = (0..count).map(|_| None).collect();
    let shared = Mutex::new((nothing, begin));
    let run = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            break;
        }
        let result = work(index);
        if result.is_err() {
            // What is under way ends; nothing else begins.
            next.store(count, Ordering::Relaxed);
        }
        let Ok(mut shared) = shared.lock() else { break };
        let (results, told) = &mut *shared;
        results[index] = Some(result);
        if told.elapsed() >= QUIET {
            *told = Instant::now();
            let done = results.iter().flatten().count();
            eprintln!("{what}: {done} of {count} after {:.0} s", begin.elapsed().as_secs_f64());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(run);
        }
    });
    let (results, _) = shared.into_inner().ok().context("a thread panicked")?;
    // The error, where there is one, comes before the places that nobody came to.
    let (failed, rest): (Vec<_>, Vec<_>) = results.into_iter().partition(|result| matches!(result, Some(Err(_))));
    if let Some(Some(Err(error))) = failed.into_iter().next() {
        return Err(error);
    }
    rest.into_iter().map(|result| result.context("a thread panicked")?).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_an_error_is_told() {
        assert_eq!(on_all_cores("squares", 100, |index| Ok(index * index)).unwrap()[7], 49);
        assert!(on_all_cores("nothing", 0, |_| Ok(())).unwrap().is_empty());
        let refused = on_all_cores("refused", 50, |index| if index == 3 { anyhow::bail!("three") } else { Ok(()) });
        assert_eq!(refused.unwrap_err().to_string(), "three");
    }
}
