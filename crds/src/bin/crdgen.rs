//! Writes the `CustomResourceDefinitions`, one file each, into the folder that is given.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = env::args_os().nth(1).ok_or("usage: crdgen <folder>")?.into();
    fs::create_dir_all(&folder)?;
    for definition in tidegate_crds::definitions() {
        let file = folder.join(format!("{}.yaml", definition.spec.names.plural));
        fs::write(file, serde_saphyr::to_string(&definition)?)?;
    }
    Ok(())
}
