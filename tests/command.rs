//! The commands of `examples/`, as a script calls them: what they write, and their exit codes.

#![cfg(all(feature = "onnx", feature = "safetensors", feature = "gguf"))]

use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// Builds the examples as these tests were built, and says where they are.
fn examples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // `target/PROFILE/deps/command-…`
        let test = env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let is_release = profile.ends_with("release");
        let mut features = vec!["onnx", "safetensors", "gguf"];
        features.extend(cfg!(feature = "rten").then_some("rten"));
        features.extend(cfg!(feature = "linalg").then_some("linalg"));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--profile"]);
        cargo.arg(if is_release { "release" } else { "test" });
        cargo.args(["--example", "compress_model", "--example", "inspect_model"]);
        match cfg!(all(feature = "rten", feature = "linalg", feature = "pytorch", feature = "entropy")) {
            // What is built already is taken.
            true => cargo.arg("--all-features"),
            false => cargo.args(["--features", &features.join(",")]),
        };
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        let built = cargo.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        profile.join("examples")
    })
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("lapidary-command-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("in.onnx"), include_bytes!("fixtures/digits_rescnn.onnx")).unwrap();
        fs::write(path.join("in.safetensors"), include_bytes!("fixtures/digits_rescnn.safetensors")).unwrap();
        Self(path)
    }

    /// Runs an example in the folder.
    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let path = examples().join(format!("{name}{}", env::consts::EXE_SUFFIX));
        Command::new(path).current_dir(&self.0).args(arguments).output().unwrap()
    }

    fn compress(&self, arguments: &[&str]) -> Output {
        self.run("compress_model", arguments)
    }

    fn len(&self, name: &str) -> u64 {
        fs::metadata(self.0.join(name)).unwrap().len()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.join(name)).unwrap()).unwrap()
    }

    /// The code, and the message that begins as it is promised.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let found = self.compress(arguments);
        let message = String::from_utf8(found.stderr).unwrap();
        assert!(message.lines().any(|line| line.starts_with("error: ")), "{arguments:?}: {message}");
        assert!(!self.0.join("out.onnx").exists() && !self.0.join("out.onnx.data").exists());
        (found.status.code().unwrap(), message)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_model_gets_smaller() {
    let folder = Folder::new("smaller");
    let done = folder.compress(&["in.onnx", "out.onnx", "--bits", "8", "--report", "report.json"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(folder.len("out.onnx") * 3 < folder.len("in.onnx"));
    assert!(String::from_utf8(done.stdout).unwrap().contains("times smaller"));
    let report = folder.json("report.json");
    assert_eq!(report["bytes_after"].as_u64(), Some(folder.len("out.onnx")));
    let tensors = report["tensors"].as_array().unwrap();
    assert!(tensors.iter().any(|tensor| tensor["bits"] == 8 && tensor["sqnr_db"].as_f64().unwrap() > 30.0));
    let bins = |of: &Value| of.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum::<u64>();
    for tensor in tensors.iter().filter(|tensor| tensor["bits"] == 8) {
        let all: u64 = tensor["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap()).product();
        assert_eq!(bins(&tensor["histogram"]["before"]), all);
    }
    for output in ["out.safetensors", "out.gguf"] {
        let done = folder.compress(&["in.safetensors", output, "--bits", "8", "--min-elements", "300", "--quiet"]);
        assert_eq!((done.status.code(), done.stdout.len()), (Some(0), 0), "{done:?}");
        assert!(folder.len(output) < folder.len("in.safetensors"));
    }
}

#[test]
fn budgets_and_zeros_are_as_asked_for() {
    let folder = Folder::new("budget");
    let report = |arguments: &[&str]| {
        let done = folder.compress(&[&["in.onnx", "out.onnx", "--report", "report.json"], arguments].concat());
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        folder.json("report.json")
    };
    report(&["--budget-mb", "0.05"]);
    assert!(folder.len("out.onnx") <= 50_000);
    let found = report(&["--max-error", "0.02"]);
    assert!(found["relative_error"].as_f64().unwrap() <= 0.02);
    for (arguments, least) in [(&["--sparsity", "0.9", "--sparse-initializers"][..], 0.9), (&["--n-of-m", "2:4"], 0.47)]
    {
        let found = report(arguments);
        for tensor in found["tensors"].as_array().unwrap().iter().filter(|tensor| !tensor["now"].is_null()) {
            let all: u64 = tensor["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap()).product();
            let zeros = tensor["zeros_after"].as_u64().unwrap();
            assert!(zeros as f64 >= least * all as f64 - 1.0, "{tensor}");
        }
    }
    let found = report(&["--bits", "8", "--keep", "conv", "head"]);
    let kept = |tensor: &&Value| tensor["unchanged_because"].as_str().is_some_and(|reason| reason.starts_with("kept"));
    let named = |tensor: &&Value| ["conv", "head"].iter().any(|part| tensor["name"].as_str().unwrap().contains(part));
    let tensors = found["tensors"].as_array().unwrap();
    assert!(tensors.iter().filter(kept).all(|tensor| named(&tensor)));
}

#[test]
fn the_page_stands_alone() {
    let folder = Folder::new("page");
    let arguments = ["in.onnx", "out.onnx", "--bits", "4", "--sparsity", "0.5", "--report", "report.html"];
    assert_eq!(folder.compress(&arguments).status.code(), Some(0));
    let page = fs::read_to_string(folder.0.join("report.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    for outside in ["src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Of every chart there are a title and a description, and every number is in the table.
    let charts = page.matches("<svg").count();
    assert!(charts > 4 && page.matches("<desc").count() == charts && page.matches("role=\"img\"").count() == charts);
    assert!(page.contains("prefers-color-scheme: dark"));
    for tag in ["svg", "g", "table", "tr", "td", "th", "figure", "div", "text", "title", "ul", "dl"] {
        let open = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn names_cannot_break_the_page() {
    use lapidary::format::{
        file::{ElementType, TensorInfo},
        safetensors,
    };
    let folder = Folder::new("names");
    let name = "<script>alert('x')</script>&\"w\"";
    let info = TensorInfo { name: name.into(), element: ElementType::F32, shape: vec![64, 32] };
    let writer = safetensors::layout(&[info], &Default::default()).unwrap().create(folder.0.join("bad.safetensors"));
    let writer = writer.unwrap();
    let bytes: Vec<u8> = (0..2048).flat_map(|i| (i as f32 * 0.1).sin().to_le_bytes()).collect();
    writer.write(0, 0, &bytes).unwrap();
    writer.finish().unwrap();
    let arguments = ["bad.safetensors", "out.safetensors", "--bits", "8", "--report", "report.HTML"];
    assert_eq!(folder.compress(&arguments).status.code(), Some(0));
    let page = fs::read_to_string(folder.0.join("report.HTML")).unwrap();
    assert!(
        !page.contains("<script") && page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;w&quot;")
    );
}

#[test]
fn exit_codes_are_those_of_the_docs() {
    let folder = Folder::new("codes");
    fs::write(folder.0.join("broken.onnx"), "no model").unwrap();
    // 1: what cannot be read or written.
    assert_eq!(folder.fails(&["missing.onnx", "out.onnx", "--bits", "8"]).0, 1);
    assert_eq!(folder.fails(&["broken.onnx", "out.onnx", "--bits", "8"]).0, 1);
    assert_eq!(folder.fails(&["in.onnx", "in.onnx", "--bits", "8"]).0, 1);
    assert_eq!(folder.fails(&["in.onnx", "no/such/folder/out.onnx", "--bits", "8"]).0, 1);
    assert_eq!(folder.fails(&["in.onnx", "out.onnx", "--bits", "8", "--report", "no/such/report.html"]).0, 1);
    // 2: wrong arguments.
    for arguments in [
        &["in.onnx"][..],
        &["in.onnx", "out.onnx", "--bits", "3"],
        &["in.onnx", "out.onnx", "--bits", "eight"],
        &["in.onnx", "out.onnx", "--unknown"],
        &["in.onnx", "out.tar", "--bits", "8"],
        &["in.onnx", "out.gguf", "--bits", "8", "--scheme", "matmul-nbits"],
        &["in.onnx", "out.onnx", "--sparsity", "1.5"],
        &["in.onnx", "out.onnx", "--n-of-m", "5:4"],
        &["in.onnx", "out.onnx", "--n-of-m", "2-4"],
        &["in.onnx", "out.onnx", "--sparsity", "0.5", "--n-of-m", "2:4"],
        &["in.onnx", "out.onnx", "--sparse-initializers"],
        &["in.onnx", "out.onnx", "--budget-mb", "1", "--max-error", "0.1"],
        &["in.onnx", "out.onnx", "--budget-mb", "NaN"],
        &["in.onnx", "out.onnx", "--max-error", "-1"],
    ] {
        assert_eq!(folder.fails(arguments).0, 2, "{arguments:?}");
    }
    // 4: a budget that nothing keeps.
    let (code, message) = folder.fails(&["in.onnx", "out.onnx", "--budget-mb", "0.001"]);
    assert!(code == 4 && message.contains("the least is"), "{message}");
    let (code, message) = folder.fails(&["in.onnx", "out.onnx", "--max-error", "0.01", "--sparsity", "0.9"]);
    assert!(code == 4 && message.contains("the least is"), "{message}");
}

#[cfg(feature = "rten")]
#[test]
fn other_files_are_left_alone() {
    let folder = Folder::new("others");
    let whole = fs::read(folder.0.join("in.safetensors")).unwrap();
    for report in ["in.safetensors", "./in.safetensors", "out.safetensors"] {
        let (code, message) = folder.fails(&["in.safetensors", "out.safetensors", "--bits", "8", "--report", report]);
        assert!(code == 2 && message.contains("another file"), "{message}");
    }
    assert_eq!(fs::read(folder.0.join("in.safetensors")).unwrap(), whole);
    fs::write(folder.0.join("out.safetensors.data"), "of another").unwrap();
    let (code, _) = folder.fails(&["in.safetensors", "out.safetensors", "--bits", "8", "--report", "absent/r.json"]);
    assert!(code == 1 && folder.len("out.safetensors.data") == 10 && !folder.0.join("out.safetensors").exists());
    if cfg!(feature = "rten") {
        let (code, _) = folder.fails(&["in.onnx", "out.onnx", "--slim", "0.5", "--inputs", "absent.npz"]);
        assert_eq!(code, 1);
    }
}

#[test]
fn a_model_that_differs_too_much_is_removed() {
    let folder = Folder::new("verify");
    let verify = ["in.onnx", "out.onnx", "--bits", "2", "--group", "32", "--verify", "--max-difference", "1e-4"];
    let (code, message) = folder.fails(&verify);
    assert!(code == 3 && message.contains("differs"), "{message}");
    let fits = ["in.onnx", "out.onnx", "--bits", "8", "--verify", "--max-difference", "0.5", "--report", "report.json"];
    assert_eq!(folder.compress(&fits).status.code(), Some(0));
    assert!(folder.json("report.json")["outputs"][0]["relative_difference"].as_f64().unwrap() < 0.5);
}

#[test]
fn a_model_is_listed() {
    let folder = Folder::new("inspect");
    let listed = folder.run("inspect_model", &["in.onnx"]);
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.status.success() && text.contains("outliers") && text.contains("f32"), "{text}");
    let gguf = ["in.safetensors", "out.gguf", "--bits", "8", "--min-elements", "300"];
    assert_eq!(folder.compress(&gguf).status.code(), Some(0));
    for (file, element) in [("in.onnx", "f32"), ("out.gguf", "q8_0")] {
        let listed = folder.run("inspect_model", &[file, "--json"]);
        let all: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let tensors = all["tensors"].as_array().unwrap();
        let of = tensors.iter().find(|tensor| tensor["type"] == element).unwrap();
        for key in ["zeros", "sparsity", "min", "max", "mean", "deviation", "outliers", "not_finite", "bytes"] {
            assert!(of[key].is_number(), "{key}: {of}");
        }
        assert!(of["min"].as_f64().unwrap() < of["max"].as_f64().unwrap());
    }
    for (arguments, code) in [(&["missing.onnx"][..], 1), (&[], 2), (&["in.onnx", "--unknown"], 2)] {
        let found = folder.run("inspect_model", arguments);
        assert_eq!(found.status.code(), Some(code));
        assert!(String::from_utf8(found.stderr).unwrap().contains("error: "));
    }
}
