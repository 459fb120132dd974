//! `sentinel bench packing` on a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn folder(test: &str, instance: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench_packing").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("packing")).unwrap();
    fs::write(folder.join("packing/minimalloc-tiny.csv"), instance).unwrap();
    folder
}

fn bench(folder: &Path) -> Output {
    let arguments = ["bench", "packing", "--exact-seconds", "5", "--data"];
    Command::new(env!("CARGO_BIN_EXE_sentinel")).args(arguments).arg(folder).output().unwrap()
}

#[test]
fn the_last_line_is_one_object() {
    // Load 11, optimum 12.
    let instance =
        "id,lower,upper,size\n0,6,10,4\n1,3,5,2\n2,4,7,6\n3,2,5,3\n4,1,2,5\n5,6,8,1\n6,3,4,5\n7,2,4,1\n8,1,3,6\n";
    let Output { status, stdout, stderr } = bench(&folder("object", instance));
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let out = String::from_utf8(stdout).unwrap();
    assert!(out.starts_with("instance"), "{out}");
    let summary: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let ratio = 12.0 / 11.0;
    for key in ["worst_minimalloc_ratio", "worst_minimalloc_ratio_exact"] {
        assert!((summary[key].as_f64().unwrap() - ratio).abs() < 1e-12, "{key}: {summary}");
    }
    for key in ["worst_dl_ratio", "fast_100k_cpu_seconds", "calibration_cpu_seconds"] {
        assert!(summary[key].as_f64().is_some(), "{key}: {summary}");
    }
    let tiny = &summary["instances"][0];
    assert_eq!((tiny["name"].as_str(), tiny["load_bytes"].as_u64()), (Some("minimalloc-tiny"), Some(11)));
    assert_eq!(tiny["efforts"].as_array().unwrap().len(), 3);
}

#[test]
fn more_seconds_than_a_day_has_are_refused() {
    let arguments = ["bench", "packing", "--exact-seconds", "18446744073709551615"];
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_sentinel")).args(arguments).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("18446744073709551615 is not in 0..=86400") && said.contains("--exact-seconds"), "{said}");
}

#[test]
fn a_wrong_line_is_named() {
    let Output { status, stderr, .. } = bench(&folder("wrong", "id,lower,upper,size\n0,0,4,7\n1,5,5,8\n"));
    assert_eq!(status.code(), Some(1));
    let said = String::from_utf8(stderr).unwrap();
    let expected = "minimalloc-tiny.csv, line 3: \"1,5,5,8\" is not id,lower,upper,size with lower < upper\n";
    assert!(said.ends_with(expected), "{said}");
}
