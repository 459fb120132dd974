//! `sentinel trace scale`: what it writes, and what it says when it cannot.

mod common;

use std::fs;

use common::{directory, file_with, sentinel, step, Ran};
use trace::{Origin, StepTrace};

/// The step with everything but the weights twice as large and every operation twice as long.
fn twice() -> StepTrace {
    let mut twice = step();
    for buffer in twice.buffers.iter_mut().filter(|buffer| buffer.origin != Origin::Persistent) {
        buffer.size_bytes *= 2;
        buffer.accesses.iter_mut().for_each(|access| access.bytes *= 2);
    }
    for op in &mut twice.ops {
        (op.start_ns, op.end_ns) = (2 * op.start_ns, 2 * op.end_ns);
    }
    twice
}

#[test]
fn writes_a_trace_that_other_commands_read() {
    let (first, second) = (file_with("scale-first", &step()), file_with("scale-second", &twice()));
    let out = directory("scale-out").join("out.trace").into_os_string().into_string().unwrap();
    let Ran { code, out: said, err } =
        sentinel(&["trace", "scale", &first, &second, "--batches", "64,128", "--batch", "96", "-o", &out]);
    assert_eq!((code, err.as_str()), (0, ""));
    // The weights are 2 MiB, the rest at the peak 12 MiB for 64.
    let expected = format!("batch 96 from 64 and 128: peak live 20.0 MiB, ops 4.470 ms, written to {out}\n");
    assert_eq!(said, expected);
    assert_eq!(sentinel(&["trace", "check", &out]).code, 0);
    let scaled = trace::read(&out).unwrap();
    assert_eq!(scaled.buffers[0].size_bytes, 2 << 20);
    assert_eq!(scaled.buffers[2].size_bytes, 12 << 20);
    assert_eq!(sentinel(&["plan", &out, "--fast", "50%"]).code, 0);
}

#[test]
fn names_the_first_difference_and_writes_nothing() {
    let mut other = twice();
    other.ops[1].name = "conv1/Elu".to_owned();
    let (first, second) = (file_with("scale-alike", &step()), file_with("scale-different", &other));
    let out = directory("scale-nothing").join("out.trace");
    let arguments = ["trace", "scale", &first, &second, "--batches", "64,128", "--batch", "96", "-o"];
    let Ran { code, out: said, err } = sentinel(&[&arguments[..], &[out.to_str().unwrap()]].concat());
    assert_eq!((code, said.as_str()), (1, ""));
    let expected = "sentinel: the steps are not of one graph; first difference: \
                    no such operation in the first, ops[1] conv1/Elu (Relu) in the second\n";
    assert_eq!(err, expected);
    assert!(fs::metadata(out).is_err());
}

#[test]
fn refuses_batches_that_say_nothing() {
    let file = file_with("scale-batches", &step());
    let ran = |batches, batch| {
        let Ran { code, err, .. } =
            sentinel(&["trace", "scale", &file, &file, "--batches", batches, "--batch", batch, "-o", "/dev/null"]);
        (code, err)
    };
    for batches in ["64", "64,", "0,64", "64,-1", "64,128,256", "a,b"] {
        let expected =
            format!("sentinel: --batches = {batches}: accepted are two whole numbers above 0, such as 64,128\n");
        assert_eq!(ran(batches, "96"), (2, expected));
    }
    let same = "sentinel: both steps have a batch of 64: two different ones are needed to tell what grows with it\n";
    assert_eq!(ran("64,64", "96"), (1, same.to_owned()));
    let none = "sentinel: batch = 0: accepted is a batch of at least 1\n";
    assert_eq!(ran("64,128", "0"), (1, none.to_owned()));
}
