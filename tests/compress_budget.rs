//! Mixed bits of model files: the budget is kept, more of it does no harm, and what cannot be kept is said.

#![cfg(all(feature = "onnx", feature = "safetensors", feature = "gguf", feature = "rayon"))]

use lapidary::{
    ErrorKind,
    compress::{self, Budget, Progress, Pruning, Recipe, Report, Stage},
    format::{
        file::{self, ElementType, TensorInfo},
        onnx::{self, Onnx},
        safetensors::{self, Convention},
    },
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lapidary-budget-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn rescnn(&self) -> PathBuf {
        let path = self.path("in.onnx");
        fs::write(&path, include_bytes!("fixtures/digits_rescnn.onnx")).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn go_on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn recipe(budget: Budget) -> Recipe {
    Recipe::new().with_budget(budget).unwrap().with_min_elements(64)
}

/// Layers that mind their bits differently: by their sizes and by how far their numbers reach.
fn write(path: &Path, layers: &[(usize, usize, f32)]) {
    let info = |(i, &(rows, columns, _)): (usize, &(usize, usize, f32))| TensorInfo {
        name: format!("layer{i}"),
        element: ElementType::F32,
        shape: vec![rows, columns],
    };
    let infos: Vec<_> = layers.iter().enumerate().map(info).collect();
    let writer = safetensors::layout(&infos, &BTreeMap::new()).unwrap().create(path).unwrap();
    for (i, &(rows, columns, reach)) in layers.iter().enumerate() {
        let number = |at: usize| reach * ((((at + 13 * i) * 2_654_435_761) % 10_007) as f32 / 5003.0 - 1.0);
        let bytes: Vec<u8> = (0..rows * columns).flat_map(|at| number(at).to_le_bytes()).collect();
        writer.write(i, 0, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn weights(report: &Report) -> u64 {
    report.tensors.iter().map(|tensor| tensor.bytes_after).sum()
}

/// The least that an error says.
fn least(error: &lapidary::Error) -> String {
    error.to_string().split("the least is ").nth(1).unwrap().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn more_bytes_do_no_harm(
        layers in prop::collection::vec((2usize..20, 32usize..200, prop::sample::select(vec![1e-3f32, 0.1, 1.0, 30.0])), 1..6),
        shares in prop::collection::vec(0.0f64..1.1, 4),
    ) {
        let folder = Folder::new();
        let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
        write(&input, &layers);
        let run = |budget| compress::safetensors(&input, &output, &recipe(budget), Convention::Lapidary, &go_on);
        let (low, high) = (least(&run(Budget::Weights(0)).unwrap_err()).parse::<u64>().unwrap(), len(&input));
        let mut limits: Vec<u64> = shares.iter().map(|share| low + ((high - low) as f64 * share) as u64).collect();
        limits.sort_unstable();
        let mut last = f64::INFINITY;
        for limit in limits {
            let report = run(Budget::Weights(limit)).unwrap();
            prop_assert!(weights(&report) <= limit, "{} in {limit}", weights(&report));
            let error = report.relative_error.unwrap();
            prop_assert!(error <= last * (1.0 + 1e-9), "{error} after {last}");
            last = error;
            // And the file as a whole keeps its own budget.
            let report = run(Budget::File(limit + 3000)).unwrap();
            prop_assert!(len(&output) <= limit + 3000 && report.bytes_after == len(&output));
        }
    }

    #[test]
    fn more_error_takes_no_more_bytes(
        layers in prop::collection::vec((2usize..20, 32usize..200, prop::sample::select(vec![1e-3f32, 0.1, 1.0, 30.0])), 1..6),
        errors in prop::collection::vec(prop_oneof![Just(0.0), 1e-4f64..0.5], 4),
    ) {
        let folder = Folder::new();
        let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
        write(&input, &layers);
        let mut errors = errors;
        errors.sort_by(f64::total_cmp);
        let mut last = u64::MAX;
        for error in errors {
            let recipe = recipe(Budget::Error(error));
            let report = compress::safetensors(&input, &output, &recipe, Convention::Lapidary, &go_on).unwrap();
            prop_assert!(report.relative_error.unwrap() <= error * (1.0 + 1e-9));
            prop_assert!(weights(&report) <= last);
            last = weights(&report);
        }
    }
}

#[test]
fn an_onnx_file_is_within_its_budget() {
    let folder = Folder::new();
    let (input, output) = (folder.rescnn(), folder.path("out.onnx"));
    let run = |limit| compress::onnx(&input, &output, &recipe(Budget::File(limit)), &go_on);
    let error = run(1000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Budget);
    assert!(!output.exists());
    let least: u64 = least(&error).parse().unwrap();
    assert_eq!(run(least).unwrap().bytes_after, least);
    assert_eq!(run(least - 1).unwrap_err().kind(), ErrorKind::Budget);
    let (mut last, mut seen) = (f64::INFINITY, BTreeSet::new());
    for limit in (least..len(&input) + 20_000).step_by(4_000) {
        let report = run(limit).unwrap();
        assert!(len(&output) <= limit && report.bytes_after == len(&output), "{report}");
        // Little is left over, where more would be better.
        assert!(report.relative_error == Some(0.0) || limit - len(&output) < 8_000, "{limit}: {report}");
        let error = report.relative_error.unwrap();
        assert!(error <= last, "{error} after {last}");
        last = error;
        seen.extend(report.tensors.iter().map(|tensor| tensor.bits));
        for tensor in report.tensors.iter().filter(|tensor| tensor.outcome.is_err()) {
            assert_eq!((tensor.bytes_after, tensor.sqnr_db), (tensor.bytes_before, None));
        }
    }
    assert_eq!(last, 0.0);
    assert!(seen.len() >= 4, "{seen:?}");
}

#[test]
fn no_weight_has_fewer_bits_than_the_recipe_says() {
    let folder = Folder::new();
    let (input, output) = (folder.rescnn(), folder.path("out.onnx"));
    let run = |bits: u8| {
        let recipe = recipe(Budget::Error(0.9)).with_bits(bits).unwrap();
        let report = compress::onnx(&input, &output, &recipe, &go_on).unwrap();
        report.tensors.iter().filter_map(|tensor| tensor.bits).collect::<BTreeSet<_>>()
    };
    assert_eq!((run(2).first(), run(4).first(), run(8).first()), (Some(&2), Some(&4), Some(&8)));
}

#[test]
fn weights_in_a_file_of_their_own_count() {
    let folder = Folder::new();
    let (input, output) = (folder.path("external.onnx"), folder.path("out.onnx"));
    let model = Onnx::open(folder.rescnn()).unwrap().inlined().unwrap();
    let (own, data) = onnx::layout_external(&model, "external.bin").unwrap();
    data.create(folder.path("external.bin")).unwrap().finish().unwrap();
    own.create(&input).unwrap().finish().unwrap();
    // Each tensor begins on a page there.
    for limit in [95_000, 110_000, 130_000] {
        compress::onnx(&input, &output, &recipe(Budget::File(limit)), &go_on).unwrap();
        assert!(len(&output) + len(&folder.path("out.onnx.data")) <= limit);
    }
}

#[test]
fn blocks_of_gguf_are_mixed() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.gguf"));
    write(&input, &[(20, 256, 1.0), (8, 512, 30.0), (16, 64, 0.1), (5, 33, 1.0)]);
    let run = |budget| compress::gguf(&input, &output, &recipe(budget), &go_on);
    let least: u64 = least(&run(Budget::File(0)).unwrap_err()).parse().unwrap();
    let mut seen = BTreeSet::new();
    for limit in (least..len(&input)).step_by(1500) {
        let report = run(Budget::File(limit)).unwrap();
        assert!(len(&output) <= limit);
        seen.extend(report.tensors.iter().map(|tensor| tensor.bits));
        let after = file::open(&output).unwrap();
        assert!(
            report
                .tensors
                .iter()
                .zip(after.tensors())
                .all(|(line, info)| { (line.bits.is_some()) == matches!(info.element, ElementType::Block(_)) })
        );
    }
    assert_eq!(seen, [None, Some(4), Some(8)].into());
    assert!(compress::gguf(&input, &output, &recipe(Budget::Error(0.1)).with_bits(2).unwrap(), &go_on).is_ok());
}

#[test]
fn what_is_pruned_counts_as_error() {
    let folder = Folder::new();
    let (input, output) = (folder.rescnn(), folder.path("out.onnx"));
    let pruned =
        |share: f64, budget| recipe(budget).with_pruning(Pruning::sparsity(share).unwrap().sparse_initializers());
    let run = |share: f64, error: f64| compress::onnx(&input, &output, &pruned(share, Budget::Error(error)), &go_on);
    let error = run(0.9, 0.05).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Budget);
    let least: f64 = least(&error).parse().unwrap();
    assert!(least > 0.05 && run(0.9, least * 0.999).is_err());
    let report = run(0.9, least * 1.001).unwrap();
    assert!(report.relative_error.unwrap() <= least * 1.001);
    let report = run(0.3, 0.2).unwrap();
    assert!(report.relative_error.unwrap() <= 0.2 && report.tensors.iter().any(|tensor| tensor.bits.is_some()));
    let report = compress::onnx(&input, &output, &pruned(0.9, Budget::File(30_000)), &go_on).unwrap();
    assert!(len(&output) <= 30_000 && report.tensors.iter().all(|tensor| tensor.zeros.is_none_or(|(_, z)| z > 0)));
}

#[test]
fn the_same_bytes_on_any_number_of_threads() {
    let folder = Folder::new();
    let (input, output) = (folder.rescnn(), folder.path("out.onnx"));
    for budget in [Budget::File(40_000), Budget::Weights(50_000), Budget::Error(0.03)] {
        let written = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let report = pool.install(|| compress::onnx(&input, &output, &recipe(budget), &go_on)).unwrap();
            (fs::read(&output).unwrap(), report)
        };
        let one = written(1);
        assert!(written(2) == one && written(5) == one);
    }
}

#[test]
fn each_stage_can_be_watched_and_stopped() {
    let folder = Folder::new();
    let (input, output) = (folder.rescnn(), folder.path("out.onnx"));
    let recipe = recipe(Budget::Error(0.5)).with_pruning(Pruning::sparsity(0.2).unwrap());
    let seen = Mutex::new(BTreeMap::new());
    let watch = |progress: Progress<'_>| {
        assert!(progress.done <= progress.total);
        let mut seen = seen.lock().unwrap();
        let most = seen.entry(progress.stage.to_string()).or_insert((0, 0));
        *most = (progress.done.max(most.0), progress.total);
        ControlFlow::Continue(())
    };
    compress::onnx(&input, &output, &recipe, &watch).unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["measure", "select", "write"]);
    assert!(seen.values().all(|(done, total)| done == total), "{seen:?}");
    fs::remove_file(&output).unwrap();
    for stage in [Stage::Select, Stage::Measure, Stage::Write] {
        let stop = |progress: Progress<'_>| match progress.stage == stage {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        assert_eq!(compress::onnx(&input, &output, &recipe, &stop).unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(!output.exists());
    }
}

#[test]
fn without_weights_a_budget_is_one_of_the_rest() {
    let folder = Folder::new();
    let (input, output) = (folder.rescnn(), folder.path("out.onnx"));
    let run = |budget| compress::onnx(&input, &output, &recipe(budget).only(["nothing"]), &go_on);
    assert_eq!(run(Budget::File(50_000)).unwrap_err().kind(), ErrorKind::Budget);
    assert_eq!(run(Budget::Weights(50_000)).unwrap_err().kind(), ErrorKind::Budget);
    assert!(run(Budget::Error(0.0)).is_ok() && run(Budget::File(len(&input))).is_ok());
    assert!(Recipe::new().with_budget(Budget::Error(f64::NAN)).is_err());
}
