//! Writes the `CustomResourceDefinitions`, one file each, into the folder that is given first, and the reference of
//! their fields into the file that is given second.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(page)) = (args.next(), args.next()) else {
        return Err("usage: crdgen <folder of manifests> <page of reference>".into());
    };
    fs::create_dir_all(&folder)?;
    for definition in tidegate_crds::definitions() {
        let file = folder.join(format!("{}.yaml", definition.spec.names.plural));
        fs::write(file, serde_saphyr::to_string(&definition)?)?;
    }
    fs::write(page, tidegate_crds::reference())?;
    Ok(())
}
