//! Images to be published: optimised programs, an OCI archive of each, and the list of what is in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest as _, Sha256};

use super::{VERSION, libraries, oci, product, sbom};
use crate::cluster::{cache, progress::Progress};

/// Flags of `tidegate-e2e release`.
#[derive(Debug, clap::Args)]
pub struct ReleaseArgs {
    /// Folder that the archives are written to.
    out: PathBuf,
    /// Registry and repository prefix of the images' names, as `image.registry` of the chart.
    #[arg(long, default_value = "tidegate")]
    registry: String,
}

/// Builds and packs all images.
///
/// # Errors
/// One line that says what failed.
pub async fn run(args: &ReleaseArgs) -> anyhow::Result<()> {
    let progress = Progress::start();
    let programs = product::compile_release(&progress).await?;
    let folder = &args.out;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut sums = String::new();
    for program in product::PROGRAMS {
        let name = format!("{program}-{VERSION}");
        let reference = format!("{}/{program}:{VERSION}", args.registry);
        let archive = folder.join(format!("{name}.oci.tar"));
        let image = product::with_program(program, &programs, reference).await?;
        let digest = oci::write(&image, &mut File::create(&archive)?)
            .with_context(|| format!("cannot write {}", archive.display()))?;
        let list = folder.join(format!("{name}.cdx.json"));
        let needed = libraries::beside(&programs.join(program)).await?;
        fs::write(&list, serde_json::to_string_pretty(&sbom::of(program, &needed).await?)? + "\n")?;
        for file in [&archive, &list] {
            sums += &sum(file)?;
        }
        println!("{} {digest}", archive.display());
    }
    fs::write(folder.join("SHA256SUMS"), sums)?;
    Ok(())
}

/// A line as `sha256sum` reads it.
fn sum(file: &Path) -> anyhow::Result<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{}  {name}\n", cache::hex(&Sha256::digest(fs::read(file)?))))
}
