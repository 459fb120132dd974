//! Files that a command writes at its end: whether that can be done is found out at its begin, before minutes of work are lost.

use std::fs::{self, OpenOptions};
use std::path::Path;

/// Refuses a path to which no file can be written, by the name of the option that gave it. What is there stays as it is.
///
/// # Errors
/// When it is a folder, when its folder is missing, or when the system says that neither may be written.
pub fn check(option: &str, path: &Path) -> anyhow::Result<()> {
    let why =
        |error: &dyn std::fmt::Display| anyhow::anyhow!("{option} = {}: cannot be written: {error}", path.display());
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(why(&"it is a folder, accepted is a file")),
        Ok(_) => OpenOptions::new().append(true).open(path).map(drop).map_err(|error| why(&error)),
        Err(_) => {
            let made = OpenOptions::new().write(true).create_new(true).open(path);
            made.and_then(|file| {
                drop(file);
                fs::remove_file(path)
            })
            .map_err(|error| why(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn folder(test: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("sentinel-output-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_can_be_written_is_left_as_it_was() {
        let folder = folder("fine");
        let (old, new) = (folder.join("old"), folder.join("new"));
        fs::write(&old, "kept").unwrap();
        check("--out", &old).unwrap();
        check("--out", &new).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "kept");
        assert!(!new.exists());
        check("--out", Path::new("/dev/null")).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_cannot_is_refused_by_the_option_and_the_path() {
        let folder = folder("refused");
        let missing = folder.join("missing/out.svg");
        let said = check("--plot", &missing).unwrap_err().to_string();
        assert!(said.starts_with(&format!("--plot = {}: cannot be written: ", missing.display())), "{said}");
        assert!(check("--plot", &folder).unwrap_err().to_string().ends_with("it is a folder, accepted is a file"));
        // Nobody may make files there, whatever the user's rights.
        assert!(check("--plot", Path::new("/proc/self/out.svg")).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
