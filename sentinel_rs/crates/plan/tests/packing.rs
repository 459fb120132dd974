//! The published instances in `testdata/packing`, packed as low as they are known to go.

use plan::{load_bytes, pack_lifetimes, Effort, Item};

fn instance(name: &str) -> Vec<Item> {
    let file = format!("{}/../../testdata/packing/{name}.csv", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let number = |field: &str| field.parse::<u64>().unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<u64> = line.split(',').map(number).collect();
            let op = |at: u64| u32::try_from(at).unwrap();
            Item { size_bytes: fields[3], first_op: op(fields[1]), last_op: op(fields[2] - 1) }
        })
        .collect()
}

fn assert_apart(items: &[Item], offsets: &[u64]) {
    for (a, one) in items.iter().enumerate() {
        for (b, other) in items[..a].iter().enumerate() {
            let meet = one.first_op <= other.last_op && other.first_op <= one.last_op;
            let overlap = offsets[a] < offsets[b] + other.size_bytes && offsets[b] < offsets[a] + one.size_bytes;
            assert!(!(meet && overlap), "{a} and {b} overlap");
        }
    }
}

#[test]
fn minimalloc_instances_are_packed_to_the_optimum() {
    for name in ["A", "B", "C", "E", "F"] {
        let items = instance(&format!("minimalloc-{name}"));
        let packing = pack_lifetimes(&items, 1, Effort::Good, 1);
        assert_apart(&items, &packing.offsets);
        assert_eq!(packing.height_bytes, load_bytes(&items, 1), "{name}");
    }
}

#[test]
fn steps_of_other_systems_are_packed_to_half_a_percent() {
    for (name, load) in [("somas-resnet50", 1_515_472_556), ("iopddl-G_1", 3_030_937_746)] {
        let items = instance(name);
        assert_eq!(load_bytes(&items, 1), load);
        let packing = pack_lifetimes(&items, 1, Effort::Fast, 1);
        assert_apart(&items, &packing.offsets);
        assert!(packing.height_bytes <= load + load / 200, "{name}: {}", packing.height_bytes);
    }
}
