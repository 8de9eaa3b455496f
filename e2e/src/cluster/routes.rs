//! Whether addresses that a cluster is to have are taken.

use anyhow::bail;

use crate::cluster::process::run;

/// Two clusters with the same addresses on one machine would steal each other's packets.
pub(super) async fn refuse_foreign(ranges: &[&str]) -> anyhow::Result<()> {
    for range in ranges {
        let routes = run("ip", &["route", "show", "root", range]).await?;
        if let Some(route) = routes.lines().next() {
            bail!(
                "this machine already routes `{}`, which the cluster would use ({range}): take that cluster down first",
                route.trim()
            );
        }
    }
    Ok(())
}
