//! Generates and compiles the C++ half of the bridge; the shim that uses it is built by the wheel's own build.

fn main() {
    cxx_build::bridge("src/bridge.rs")
        .std("c++14")
        // The official cp37 wheel of TensorFlow 1.13.1 is built with the new string ABI.
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .flag_if_supported("-fvisibility=hidden")
        .compile("sentinel-bridge");
    println!("cargo:rerun-if-changed=src/bridge.rs");
}
