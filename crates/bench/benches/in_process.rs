//! The contestants of the suite `memory`, one after the other, under criterion: for following one of them over changes of the
//! code. Ratios between contestants come from `cargo xtask bench memory`, which alternates them.

use acteon_bench::memory::Field;
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};

/// Enough that the maps do not fit into the processor's caches.
const KEYS: usize = 1_000_000;

fn in_process(criterion: &mut Criterion) {
    let field = Field::fill(KEYS).expect("memory holds this many keys");
    for (case, contestants) in field.cases(1) {
        let mut group = criterion.benchmark_group(case);
        // A sample is one walk of half a million operations, however many iterations criterion asks for.
        group.sampling_mode(SamplingMode::Flat).sample_size(10);
        for mut contestant in contestants {
            let name = contestant.name.clone();
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| (contestant.run)().mul_f64(iterations as f64));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, in_process);
criterion_main!(benches);
