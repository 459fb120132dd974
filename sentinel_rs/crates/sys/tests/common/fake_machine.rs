//! A machine as files below a folder of its own.

use std::path::{Path, PathBuf};

pub struct FakeMachine {
    pub root: PathBuf,
}

impl FakeMachine {
    /// A machine without files; `name` tells the machines of a test file apart.
    pub fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME")).join(name);
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        FakeMachine { root }
    }

    pub fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }
}
