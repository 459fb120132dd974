//! The built binary, and a trace for it to read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use trace::{Access, Buffer, LayerSource, Op, Origin, StepTrace};

/// What a run printed, and its exit code.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The binary, to be started with arguments of its own.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sentinel"))
}

/// Runs the binary and waits for it.
pub fn sentinel(arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = binary().args(arguments).output().unwrap();
    Ran {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// A fresh empty directory for one test.
pub fn directory(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sentinel").join(test);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Writes `step` for one test; the path of the file.
pub fn file_with(test: &str, step: &StepTrace) -> String {
    let path = directory(test).join("step.trace");
    trace::write(&path, step).unwrap();
    path.into_os_string().into_string().unwrap()
}

fn op(kernel: u32, layer: u32, kind: &str, name: &str, start_us: u64, time_us: u64) -> Op {
    Op {
        kernel,
        name: name.to_owned(),
        kind: kind.to_owned(),
        layer,
        start_ns: start_us * 1000,
        end_ns: (start_us + time_us) * 1000,
        predecessors: (0..kernel).rev().take(1).collect(),
    }
}

fn buffer(origin: Origin, size_bytes: u64, death_op: Option<u32>, accesses: &[(u32, bool)]) -> Buffer {
    let accesses = accesses.iter().map(|&(op, write)| Access { op, write, bytes: size_bytes }).collect();
    Buffer { size_bytes, origin, death_op, temporary: false, accesses }
}

/// A step of two layers forward and two backward, with a buffer of every class.
pub fn step() -> StepTrace {
    let born = |op, ordinal| Origin::Step { op, ordinal };
    let mib = 1 << 20;
    let mut buffers = vec![
        buffer(Origin::Persistent, 2 * mib, None, &[(0, false), (4, false), (5, true)]),
        buffer(Origin::External, 3 * mib, None, &[(0, false)]),
        buffer(born(0, 0), 8 * mib, Some(1), &[(0, true), (1, false)]),
        buffer(born(1, 0), 4 * mib, Some(4), &[(1, true), (2, false), (4, false)]),
        buffer(born(2, 0), mib, Some(3), &[(2, true), (3, false)]),
        buffer(born(2, 1), 512, Some(2), &[(2, true)]),
        buffer(born(4, 0), 2 * mib, Some(5), &[(4, true), (5, false)]),
        buffer(born(3, 0), 8192, None, &[(3, true)]),
    ];
    buffers[5].temporary = true;
    StepTrace {
        counts: None,
        tensorflow_version: "1.13.1".to_owned(),
        step_number: 10,
        intra_op_threads: 2,
        inter_op_threads: 1,
        layer_source: LayerSource::Marked,
        ops: vec![
            op(0, 0, "Conv2D", "conv1/Conv2D", 10, 1500),
            op(1, 0, "Relu", "conv1/Relu", 1520, 80),
            op(2, 1, "MatMul", "fc/MatMul", 1600, 400),
            op(3, 2, "Softmax", "loss", 2000, 100),
            op(4, 3, "MatMul", "gradients/fc/MatMul_grad", 2100, 800),
            op(5, 3, "ApplyGradientDescent", "train/update", 2900, 100),
        ],
        buffers,
    }
}
