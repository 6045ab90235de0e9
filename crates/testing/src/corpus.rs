//! The committed inputs of the fuzz targets, run as tests.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The most that one input may take, even without optimisation on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// The name of a fuzz target, and the function that has to hold for any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Runs each target on every file of the folder of its name in `fuzz/corpus`.
///
/// # Panics
/// When a target does not hold, takes too long, or has no inputs.
pub fn replay(targets: &[Target]) {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in targets {
        let folder = corpora.join(name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("no corpus {}: {e}", folder.display()));
        let mut count = 0;
        for entry in entries.map(|e| e.expect("a corpus can be listed").path()) {
            // Shown when the target does not hold.
            println!("{}", entry.display());
            let input = fs::read(&entry).expect("an input can be read");
            let start = Instant::now();
            target(&input);
            assert!(start.elapsed() < LIMIT, "{} takes {:?}", entry.display(), start.elapsed());
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}
