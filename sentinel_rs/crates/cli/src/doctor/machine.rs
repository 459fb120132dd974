//! A machine profile for the planner, from what was measured.

use std::fmt::Write;

use plan::Machine;

use super::facts::{Facts, Node};

/// Bytes of a cache line.
const LINE_BYTES: f64 = 64.0;

/// The text of a profile: the fast node, and the slow node or, where there is none, swap.
pub fn profile(facts: &Facts) -> Result<String, String> {
    let measured = facts.measured.as_ref().ok_or("nothing was measured; leave out --quick")?;
    let of_node = |id: u32| facts.nodes.iter().find(|node| node.id == id);
    let fast = of_node(facts.fast_node).ok_or("there is no fast node")?;
    let fast_tier = node_tier(fast)?;
    let latency_ns = fast.latency_ns.ok_or("the fast node was not measured")?;
    // Little's law: what is on its way at any moment is throughput times latency.
    let one_thread = measured.one_thread_read_gbps.ok_or("the bandwidth of one thread was not measured")?;
    let in_flight = one_thread * latency_ns / LINE_BYTES;
    let (slow_tier, promote, demote, how) = match facts.slow_node.and_then(of_node) {
        Some(slow) => {
            // Huge pages where they move, because the runtime's memory is made of them.
            let moves = facts.moves.iter().rev().find_map(|one| Some((one.promote_gbps?, one.demote_gbps?)));
            let (promote, demote) = moves.ok_or("pages could not be moved between the nodes")?;
            (node_tier(slow)?, promote, demote, "move_pages, one thread")
        }
        None => {
            let (tier, promote, demote) = swap_tier(facts)?;
            (tier, promote, demote, "MADV_WILLNEED and MADV_PAGEOUT, one thread")
        }
    };
    let mut text = String::new();
    let written = writeln!(
        text,
        "# Measured by `sentinel doctor --measure`: best of several passes over {} MiB per node from {} threads.\n\
         name = \"measured\"\n\n\
         # {how}.\n\
         promote_gbps = {promote:.4}\ndemote_gbps = {demote:.4}\n\n\
         # Read bandwidth of one thread times latency, in cache lines; the prefetchers' are among them.\n\
         lines_in_flight_per_thread = {in_flight:.2}\n\n\
         threads = {}\n\n{fast_tier}\n{slow_tier}",
        measured.buffer_bytes >> 20,
        measured.threads,
        measured.threads
    );
    written.map_err(|error| error.to_string())?;
    Machine::parse("the measured profile", &text).map_err(|error| error.to_string())?;
    Ok(text)
}

fn node_tier(node: &Node) -> Result<String, String> {
    let (Some(read), Some(write), Some(latency)) = (node.read_gbps, node.write_gbps, node.latency_ns) else {
        let why = node.error.as_deref().unwrap_or("it has no memory");
        return Err(format!("node {} could not be measured: {why}", node.id));
    };
    Ok(format!(
        "[[tiers]]\nname = \"node {}\"\nread_gbps = {read:.3}\nwrite_gbps = {write:.3}\nlatency_ns = {latency:.1}\n",
        node.id
    ))
}

/// Swap as a tier, with its speed in and out.
fn swap_tier(facts: &Facts) -> Result<(String, f64, f64), String> {
    let speeds = facts.swap_speed.iter();
    let found = speeds.filter_map(|one| Some((one.in_gbps?, one.out_gbps?, one.fault_ns?))).next();
    let (read, write, fault_ns) = found.ok_or_else(|| {
        let why = facts.swap_speed.iter().find_map(|one| one.error.clone());
        let why = why.unwrap_or_else(|| "there is no swap".to_owned());
        format!("a profile needs two tiers, and this machine has one memory node and no swap to measure: {why}")
    })?;
    let tier = format!(
        "# A page fault waits for one page; nothing else is on its way meanwhile.\n\
         [[tiers]]\nname = \"swap\"\nread_gbps = {read:.4}\nwrite_gbps = {write:.4}\nlatency_ns = {fault_ns:.1}\n\
         access_bytes = {}.0\nin_flight_per_thread = 1.0\n",
        sys::memory::PAGE_BYTES
    );
    Ok((tier, read, write))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{Measured, Move, SwapSpeed};

    fn measured(slow: bool) -> Facts {
        let node = |id, gbps: f64| Node {
            id,
            read_gbps: Some(gbps),
            write_gbps: Some(gbps / 2.0),
            latency_ns: Some(128.0),
            ..Node::default()
        };
        let moved =
            |page_bytes, gbps| Move { page_bytes, promote_gbps: Some(gbps), demote_gbps: Some(gbps), error: None };
        Facts {
            nodes: vec![node(0, 30.0), node(1, 10.0)],
            slow_node: slow.then_some(1),
            measured: Some(Measured {
                threads: 2,
                cpus: vec![0, 1],
                buffer_bytes: 256 << 20,
                one_thread_read_gbps: Some(20.0),
            }),
            moves: vec![moved(4096, 0.5), moved(2 << 20, 2.0)],
            ..Facts::default()
        }
    }

    #[test]
    fn two_nodes_make_a_profile_that_the_planner_accepts() {
        let machine = Machine::parse("test", &profile(&measured(true)).unwrap()).unwrap();
        assert_eq!((machine.tiers.len(), machine.threads), (2, Some(2)));
        assert!((machine.promote_gbps - 2.0).abs() < 1e-9, "huge pages where they move");
        assert!((machine.lines_in_flight_per_thread - 40.0).abs() < 1e-9, "20 GB/s at 128 ns are 40 lines");
        assert!((machine.tiers[1].write_gbps - 5.0).abs() < 1e-9);
    }

    #[test]
    fn one_node_with_swap_makes_a_profile_and_without_does_not() {
        let mut facts = measured(false);
        let why = profile(&facts).unwrap_err();
        assert!(why.contains("one memory node") && why.contains("no swap"), "{why}");
        facts.swap_speed = vec![SwapSpeed {
            page_bytes: 4096,
            out_gbps: Some(1.0),
            in_gbps: Some(2.0),
            fault_ns: Some(9000.0),
            error: None,
        }];
        let machine = Machine::parse("test", &profile(&facts).unwrap()).unwrap();
        assert!((machine.tiers[1].access_bytes - 4096.0).abs() < 1e-9);
        assert!((machine.promote_gbps - 2.0).abs() < 1e-9 && (machine.demote_gbps - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let mut facts = measured(true);
        facts.nodes[1].latency_ns = None;
        facts.nodes[1].error = Some("EPERM".into());
        assert_eq!(profile(&facts).unwrap_err(), "node 1 could not be measured: EPERM");
        facts.measured = None;
        assert!(profile(&facts).unwrap_err().contains("--quick"));
    }
}
