//! The plots in the documentation are what the decision core does now.

use std::path::Path;

#[test]
fn the_committed_plots_are_what_the_core_draws() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plots");
    let plots = tidegate_e2e::plots::all().unwrap();
    assert_eq!(plots.len(), 6);
    for (name, svg) in plots {
        assert!(svg.len() < 60_000, "{name} has {} bytes", svg.len());
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(committed == svg, "{name} differs: run make gen");
    }
}
