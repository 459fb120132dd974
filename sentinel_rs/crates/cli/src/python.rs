//! What a Python interpreter has: its version, its TensorFlow, Sentinel in it, and whether a session runs under Sentinel.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// Finds the packages without importing them.
const LOOK: &str = r#"
import glob, importlib.util, json, os, platform, sys
found = {"python": platform.python_version(), "executable": sys.executable, "tensorflow": None, "folder": None, "library": False}
spec = importlib.util.find_spec("tensorflow")
if spec is not None and spec.submodule_search_locations:
    folder = list(spec.submodule_search_locations)[0]
    infos = sorted(glob.glob(os.path.join(os.path.dirname(folder), "tensorflow-*.dist-info")))
    version = os.path.basename(infos[0])[len("tensorflow-"):-len(".dist-info")] if infos else "of unknown version"
    found.update(tensorflow=version, folder=folder, library=os.path.isfile(os.path.join(folder, "libsentinel.so")))
print(json.dumps(found))
"#;

/// Runs one session under Sentinel with an emulated slow tier, which every machine has.
const TRY: &str = r#"
import json, sys, warnings
warnings.simplefilter("ignore")
import tensorflow as tf
tf.logging.set_verbosity(tf.logging.ERROR)
with tf.Session() as session:
    session.run(tf.constant(1) + 1)
    stats = tf.sentinel.stats()
print(json.dumps({"version": tf.sentinel.__version__, "active": stats["active"], "message": stats["message"]}))
"#;

/// An interpreter and what is installed in it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Installed {
    /// Its version, such as `3.7.17`.
    pub python: String,
    /// Its path.
    pub executable: String,
    /// Version of its TensorFlow.
    pub tensorflow: Option<String>,
    /// Where TensorFlow lies.
    pub folder: Option<String>,
    /// Whether Sentinel's library lies there.
    pub library: bool,
}

impl Installed {
    /// One sentence.
    pub fn in_words(&self) -> String {
        match (&self.tensorflow, self.library) {
            (None, _) => format!("{} (Python {}) has no TensorFlow", self.executable, self.python),
            (Some(version), false) => {
                format!(
                    "{} has TensorFlow {version} without Sentinel; install the wheel with Sentinel there",
                    self.executable
                )
            }
            (Some(version), true) => {
                format!("{} has TensorFlow {version} with Sentinel, but the command did not import it", self.executable)
            }
        }
    }
}

/// What a session under Sentinel said.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Tried {
    /// The library's version.
    pub version: String,
    /// Whether it took part.
    pub active: bool,
    /// Why not.
    pub message: Option<String>,
}

/// The interpreter that a program's name stands for, when it looks like one.
pub fn interpreter(program: &OsStr) -> Option<PathBuf> {
    let path = Path::new(program);
    let name = path.file_name()?.to_str()?;
    name.starts_with("python").then(|| path.to_owned())
}

/// Asks an interpreter what it has. Nothing is imported, so it takes a fraction of a second.
pub fn installed(python: &Path) -> Result<Installed, String> {
    ask(python, LOOK, &[])
}

/// Runs a small session under Sentinel in this interpreter; takes as long as importing TensorFlow.
pub fn try_session(python: &Path) -> Result<Tried, String> {
    ask(python, TRY, &[("SENTINEL_FAST", "64M"), ("SENTINEL_SLOW", "emulated:optane")])
}

fn ask<T: for<'a> Deserialize<'a>>(python: &Path, program: &str, variables: &[(&str, &str)]) -> Result<T, String> {
    let mut command = Command::new(python);
    command.args(["-W", "ignore", "-c", program]).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        // What the user has set for training must not change what is asked here.
        if name.to_string_lossy().starts_with("SENTINEL") {
            command.env_remove(name);
        }
    }
    command.env("TF_CPP_MIN_LOG_LEVEL", "2").envs(variables.iter().copied());
    let output = command.output().map_err(|error| error.to_string())?;
    let last = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().last().unwrap_or_default().to_owned();
    if !output.status.success() {
        let said = last(&output.stderr);
        return Err(if said.is_empty() { output.status.to_string() } else { said });
    }
    let said = last(&output.stdout);
    serde_json::from_str(&said).map_err(|error| format!("its answer `{said}` is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interpreters() {
        for name in ["python", "python3.7", "/opt/venv/bin/python3"] {
            assert_eq!(interpreter(OsStr::new(name)), Some(PathBuf::from(name)));
        }
        assert_eq!(interpreter(OsStr::new("bash")), None);
    }

    #[test]
    fn what_is_missing_is_said_in_words() {
        let found = |tensorflow: Option<&str>, library| Installed {
            python: "3.7.17".into(),
            executable: "/bin/python".into(),
            tensorflow: tensorflow.map(str::to_owned),
            folder: None,
            library,
        };
        assert_eq!(found(None, false).in_words(), "/bin/python (Python 3.7.17) has no TensorFlow");
        assert!(found(Some("1.13.1"), false).in_words().contains("TensorFlow 1.13.1 without Sentinel"));
        assert!(found(Some("1.13.1"), true).in_words().contains("did not import it"));
    }

    #[test]
    fn an_interpreter_that_fails_gives_its_last_line() {
        let why = installed(Path::new("/nonexistent/python")).unwrap_err();
        assert!(why.contains("No such file"), "{why}");
    }
}
