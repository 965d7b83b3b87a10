//! The layers of the crate, and where `unsafe` may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What each room under `src/` may import of the crate. Who is not listed may import everything.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("config", &["error", "config"]),
    ("element", &["error"]),
    ("map", &["error"]),
    ("kernel", &["element", "error", "kernel"]),
    ("tensor", &["config", "kernel", "element", "error", "tensor"]),
    ("traits", &["tensor", "kernel", "element", "error"]),
    ("linalg", &["tensor", "kernel", "element", "error", "linalg"]),
    ("optim", &["config", "linalg", "traits", "tensor", "kernel", "element", "error", "optim"]),
    ("quant", &["config", "linalg", "traits", "tensor", "kernel", "element", "error", "quant"]),
    ("prune", &["config", "linalg", "traits", "tensor", "kernel", "element", "error", "prune"]),
    ("sparse", &["traits", "tensor", "kernel", "element", "error", "sparse"]),
    ("slim", &["config", "optim", "quant", "prune", "traits", "tensor", "kernel", "element", "error", "slim"]),
    (
        "compress",
        &["config", "format", "slim", "linalg", "quant", "traits", "tensor", "kernel", "element", "error", "compress"],
    ),
    ("format", &["map", "slim", "optim", "quant", "prune", "traits", "tensor", "kernel", "element", "error", "format"]),
];

/// Items that the crate root re-exports, and where they are from.
const ROOT: &[(&str, &[&str])] = &[
    ("element", &["DType", "Element", "Real"]),
    ("error", &["Error", "ErrorKind", "Result"]),
    ("kernel", &["GradRef", "Isa", "Rule"]),
    ("linalg", &["Calibration"]),
    (
        "tensor",
        &[
            "Block8",
            "BlockMap",
            "Granularity",
            "Grid",
            "Mask",
            "Precision",
            "QTensor",
            "QuantError",
            "Scales",
            "Schema",
            "Slot",
            "SlotValues",
            "State",
            "TensorMut",
            "TensorRef",
            "Values",
        ],
    ),
    (
        "traits",
        &[
            "Criterion",
            "LearningRate",
            "OpenStep",
            "Optimizer",
            "OptimizerExt",
            "Pruner",
            "PrunerExt",
            "Quantizer",
            "QuantizerExt",
            "Resume",
            "Step",
        ],
    ),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file under `src/`: its path there, and its code without comments and without its tests.
fn code() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        (name, lines.collect::<Vec<_>>().join("\n"))
    };
    found.into_iter().map(read).collect()
}

/// The first segments of all `crate::…` paths: `use crate::{a, b::c}` and `crate::a::b` alike.
fn imports(code: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in list.chars() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => all.push(std::mem::take(&mut name)),
                    _ if depth == 0 && !c.is_whitespace() => name.push(c),
                    _ => {}
                }
            }
            all.push(name);
        } else {
            all.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect());
        }
    }
    let first = |path: String| path.split("::").next().unwrap_or_default().to_string();
    all.into_iter().map(first).filter(|name| !name.is_empty()).collect()
}

#[test]
fn imports_go_one_way() {
    let mut checked = 0;
    for (file, code) in code() {
        let room = file.split(['/', '.']).next().unwrap_or_default();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == room) else { continue };
        assert!(!code.contains("super::super"), "src/{file} climbs out by super::super");
        for import in imports(&code) {
            let from = ROOT
                .iter()
                .find(|(_, items)| items.contains(&import.as_str()))
                .map_or(import.as_str(), |(room, _)| room);
            assert!(allowed.contains(&from), "src/{file} imports crate::{import}");
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked} imports found");
}

#[test]
fn unsafe_stays_in_the_kernel_and_the_map() {
    let root = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let lines: Vec<_> = root.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let module = line.trim_start_matches("pub ").strip_prefix("mod ").and_then(|name| name.strip_suffix(';'));
        if let Some(module) = module.filter(|module| !["kernel", "map"].contains(module)) {
            assert_eq!(lines[i - 1], "#[forbid(unsafe_code)]", "{module}");
        }
    }
    let uses = |code: &str| code.matches("unsafe").count();
    let found: Vec<_> = code().into_iter().filter(|(file, code)| file != "lib.rs" && uses(code) > 0).collect();
    let mut found: Vec<_> = found.iter().map(|(file, code)| (file.as_str(), uses(code))).collect();
    found.sort_unstable();
    assert_eq!(found, [("kernel/dot/mod.rs", 2), ("kernel/dot/x86.rs", 22), ("kernel/isa.rs", 2), ("map.rs", 2)]);
}

#[test]
fn files_hold_one_idea() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    for path in found {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines", path.display());
    }
}
