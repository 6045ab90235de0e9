//! The program `ferrite`.

use std::process::ExitCode;

use clap::Parser;
use ferrite::args::{Args, Command};
use ferrite::{down, image, supervise, up};

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        Command::Up(options) => up::run(options),
        Command::Down { purge } => down::run(purge),
        Command::Images { bin_dir, folder } => image::write_all(bin_dir.as_deref(), &folder),
        Command::Supervise => return supervise::main(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ferrite: {e:#}");
            ExitCode::FAILURE
        }
    }
}
