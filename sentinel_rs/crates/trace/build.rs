//! Generates the message types from the one schema, `tensorflow/core/protobuf/sentinel.proto`.

fn main() {
    let root = "../../../tensorflow/core/protobuf";
    let schema = format!("{root}/sentinel.proto");
    println!("cargo:rerun-if-changed={schema}");
    protobuf_codegen::Codegen::new().pure().include(root).input(&schema).cargo_out_dir("proto").run_from_script();
}
