//! How long each operation takes: `cargo bench -p tern-micro`.

use divan::Bencher;
use tern_micro::ALL;

fn main() {
    divan::main();
}

#[divan::bench(args = ALL.map(|(name, _)| name))]
fn operation(bencher: Bencher<'_, '_>, name: &str) {
    let (_, make) = ALL.iter().find(|(known, _)| *known == name).expect("it is one of them");
    let mut operation = make();
    bencher.bench_local(|| operation.once());
}
