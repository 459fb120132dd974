//! `sentinel trace` on good files: what people and programs read.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{binary, file_with, sentinel, step};
use serde_json::{json, Value};
use trace::{LayerSource, StepTrace};

/// Everything that a run prints when it succeeds.
fn printed(arguments: &[&str]) -> String {
    let ran = sentinel(arguments);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
    ran.out
}

#[test]
fn show_lists_the_ops() {
    let file = file_with("show", &step());
    let expected = "\
op  layer  start ms      µs  kind                  name                         born  live after
 0      0     0.010  1500.0  Conv2D                conv1/Conv2D              8.0 MiB    10.0 MiB
 1      0     1.520    80.0  Relu                  conv1/Relu                4.0 MiB     6.0 MiB
 2      1     1.600   400.0  MatMul                fc/MatMul                 1.0 MiB     7.0 MiB
 3      2     2.000   100.0  Softmax               loss                      8.0 KiB     6.0 MiB
 4      3     2.100   800.0  MatMul                gradients/fc/MatMul_grad  2.0 MiB     4.0 MiB
 5      3     2.900   100.0  ApplyGradientDescent  train/update                  0 B     2.0 MiB
";
    assert_eq!(printed(&["trace", "show", &file]), expected);
}

#[test]
fn show_lists_the_buffers() {
    let file = file_with("show_buffers", &step());
    let expected = "\
buffer  origin         size    born   dies  temporary  reads  writes     read  written  allocated by
     0  persistent  2.0 MiB  before  after  no             2       1  4.0 MiB  2.0 MiB  -
     1  external    3.0 MiB  before  after  no             1       0  3.0 MiB      0 B  -
     2  step        8.0 MiB       0      1  no             1       1  8.0 MiB  8.0 MiB  conv1/Conv2D
     3  step        4.0 MiB       1      4  no             2       1  8.0 MiB  4.0 MiB  conv1/Relu
     4  step        1.0 MiB       2      3  no             1       1  1.0 MiB  1.0 MiB  fc/MatMul
     5  step          512 B       2      2  yes            0       1      0 B    512 B  fc/MatMul
... 2 more buffers
";
    assert_eq!(printed(&["trace", "show", "--buffers", "--limit", "6", &file]), expected);
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let mut step = step();
    step.ops[0].name = "evil\u{1b}[2J\nname".to_owned();
    let file = file_with("evil", &step);
    let out = printed(&["trace", "show", &file, "--limit", "1"]);
    assert!(out.contains("evil\\u{1b}[2J\\nname"), "{out}");
    assert!(out.ends_with("... 5 more ops\n"), "{out}");
    step.ops[0].layer = 1;
    let ran = sentinel(&["trace", "check", &file_with("evil_rule", &step)]);
    assert!(!ran.err.contains('\u{1b}'), "{}", ran.err);
}

#[test]
fn check_counts() {
    let file = file_with("check", &step());
    assert_eq!(printed(&["trace", "check", &file]), "well-formed: 6 ops, 8 buffers, 4 layers\n");
}

#[test]
fn stats_is_a_page_for_people() {
    let file = file_with("stats", &step());
    let expected = "\
TensorFlow 1.13.1, step 10
threads          2 intra-op, 1 inter-op
ops              6
layers           4 (marked)
step time        3.000 ms, ops 2.980 ms
peak live        14.0 MiB
persistent       2.0 MiB
scratch peak     512 B
bytes read       26.0 MiB
bytes written    17.0 MiB
dead in a layer  50.0% of the 6 buffers that the step allocates, 66.6% of their bytes

class        buffers     bytes
short-lived        2  10.0 MiB
long-lived         2   5.0 MiB
persistent         1   2.0 MiB
escaping           1   8.0 KiB
scratch            1     512 B
external           1   3.0 MiB
total              8  20.0 MiB

largest by size × lifetime, without external memory
buffer  class           size  lifetime ms  MiB × ms  allocated by
     2  short-lived  8.0 MiB        1.590      12.7  conv1/Conv2D
     0  persistent   2.0 MiB        3.000       6.0  -
     3  long-lived   4.0 MiB        1.380       5.5  conv1/Relu
     6  short-lived  2.0 MiB        0.900       1.8  gradients/fc/MatMul_grad
     4  long-lived   1.0 MiB        0.500       0.5  fc/MatMul
     7  escaping     8.0 KiB        1.000       0.0  loss
     5  scratch        512 B        0.400       0.0  fc/MatMul
";
    assert_eq!(printed(&["trace", "stats", &file]), expected);
}

#[test]
fn stats_is_one_json_object_for_programs() {
    let file = file_with("stats_json", &step());
    let out = printed(&["trace", "stats", "--json", &file]);
    assert_eq!(out.lines().count(), 1);
    let stats: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(stats["layer_source"], "marked");
    assert_eq!(stats["step_ns"], 3_000_000);
    assert_eq!(stats["peak_live_bytes"], 14 << 20);
    assert_eq!(stats["classes"]["short_lived"], json!({"buffers": 2, "bytes": 10 << 20}));
    assert_eq!(stats["dead_within_layer"]["buffers"], 3);
    assert_eq!(stats["largest"][0]["allocated_by"], "conv1/Conv2D");
    assert_eq!(stats["largest"][1]["allocated_by"], Value::Null);
}

#[test]
fn a_step_without_buffers_has_no_shares() {
    let file = file_with("bare", &StepTrace { buffers: vec![], layer_source: LayerSource::Inferred, ..step() });
    let out = printed(&["trace", "stats", &file]);
    assert!(out.contains("none of the 0 buffers that the step allocates, none of their bytes"), "{out}");
    assert!(out.contains("(inferred)"), "{out}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let mut step = step();
    // More output than a pipe holds, so that the binary is still writing when the reader leaves.
    step.ops = vec![step.ops[5].clone(); 20_000];
    step.ops.iter_mut().for_each(|op| op.predecessors.clear());
    step.buffers.clear();
    let file = file_with("pipe", &step);
    let mut child =
        binary().args(["trace", "show", &file]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.trim_start().starts_with("op"), "{line}");
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_full_disk_is_a_failure() {
    let file = file_with("full", &step());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = binary().args(["trace", "stats", &file]).stdout(full).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(said.starts_with("sentinel: cannot write the output: "), "{said}");
}
