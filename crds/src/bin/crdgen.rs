//! `crdgen`: prints the custom resource definitions, or writes them and their reference. Effects: standard output, files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use searchcell_crds::generate;

const USAGE: &str = "usage: crdgen             print both custom resource definitions
       crdgen write DIR   write them into DIR
       crdgen docs [DIR]  write the reference into DIR (docs/reference)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [] => print(),
        ["write", directory] => {
            generate::crds().map_err(Into::into).and_then(|files| write(directory, files))
        }
        ["docs"] => generate::docs().map_err(Into::into).and_then(|files| write("docs/reference", files)),
        ["docs", directory] => generate::docs().map_err(Into::into).and_then(|files| write(directory, files)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn print() -> Result<(), Failure> {
    for (_, text) in generate::crds()? {
        print!("---\n{text}");
    }
    Ok(())
}

fn write(directory: &str, files: Vec<(&'static str, String)>) -> Result<(), Failure> {
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory)?;
    for (name, text) in files {
        let path: PathBuf = directory.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
