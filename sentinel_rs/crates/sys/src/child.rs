//! Runs a program as if it had been started in our place: it gets our terminal and the signals meant for it, and we learn
//! how it ended.

use crate::Error;
use nix::errno::Errno;
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};

/// Signals that are passed on: those with which people and batch systems speak to a program.
const FORWARDED: [libc::c_int; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// Runs the command to its end and passes signals on to it. To be called while the process has one thread. When we are
/// killed, so is the program.
///
/// # Errors
/// [`Error::Start`] when the program cannot be started, [`Error::Wait`] when it cannot be waited for.
pub fn run(mut command: Command) -> Result<End, Error> {
    let awaited = signal_set(FORWARDED.iter().copied().chain([libc::SIGCHLD]));
    let before = block(&awaited);
    // SAFETY: between fork and exec the closure makes two system calls that are safe there, on values of its own.
    unsafe {
        command.pre_exec(move || {
            libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let spawned = command.spawn();
    let ended = match spawned {
        Ok(child) => wait(child, &awaited),
        Err(error) => {
            Err(Error::Start { program, errno: error.raw_os_error().unwrap_or(0), reason: error.to_string() })
        }
    };
    // SAFETY: `before` is the mask that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    ended
}

/// Ends this process by the signal, so that whoever started it sees what it would have seen without us. Leaves no core of
/// ours. Returns when the signal does not end a process.
pub fn die_by(signal: i32) {
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let set = signal_set([signal]);
    // SAFETY: all pointers are to values that live through the calls; the default action runs no code of ours.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        libc::signal(signal, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(signal);
    }
}

fn wait(mut child: Child, awaited: &libc::sigset_t) -> Result<End, Error> {
    let failed = |error: &std::io::Error| Error::Wait { errno: error.raw_os_error().unwrap_or(0) };
    loop {
        // Before the first signal too: one that came before the mask was set is lost, and the child may be gone already.
        if let Some(status) = child.try_wait().map_err(|error| failed(&error))? {
            let end = status.code().map(End::Exited).or_else(|| status.signal().map(End::Killed));
            return end.ok_or(Error::Wait { errno: libc::EINVAL });
        }
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        // SAFETY: the set is initialized and `info` is valid for writes.
        let signal = unsafe { libc::sigwaitinfo(awaited, info.as_mut_ptr()) };
        if signal <= 0 || signal == libc::SIGCHLD {
            continue;
        }
        // SAFETY: `sigwaitinfo` succeeded, so it has filled `info`.
        let code = unsafe { info.assume_init() }.si_code;
        // What the terminal's keys cause is sent to the program as well; a second one would count twice.
        if code != libc::SI_KERNEL {
            if let Ok(pid) = libc::pid_t::try_from(child.id()) {
                // SAFETY: the child has not been waited for, so its number is still its own.
                unsafe { libc::kill(pid, signal) };
            }
        }
    }
}

/// Blocks the signals for this thread and gives the mask from before. A child's end must be told, whatever we inherited.
fn block(set: &libc::sigset_t) -> libc::sigset_t {
    let mut before = signal_set([]);
    // SAFETY: both sets are initialized and live through the calls.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_BLOCK, set, &mut before);
    }
    before
}

fn signal_set(signals: impl IntoIterator<Item = libc::c_int>) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initializes the set; `sigaddset` refuses numbers that are no signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Name of a signal, such as `SIGKILL`.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |known| known.to_string())
}

/// Whether an error of starting a program says that there is none of that name.
#[must_use]
pub fn is_not_found(errno: i32) -> bool {
    Errno::from_raw(errno) == Errno::ENOENT
}
