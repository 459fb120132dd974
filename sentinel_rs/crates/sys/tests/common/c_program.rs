//! C programs that print what C's headers say.

use std::path::Path;
use std::process::Command;

/// What a program prints that is compiled from `source`; `name` tells the programs of all tests apart.
pub fn output(name: &str, source: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (file, program) = (folder.join(name).with_extension("c"), folder.join(name));
    std::fs::write(&file, source).unwrap();
    let compiled = Command::new("cc").arg(&file).arg("-o").arg(&program).output().expect("a C compiler named cc");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let said = Command::new(&program).output().unwrap();
    String::from_utf8(said.stdout).unwrap()
}
