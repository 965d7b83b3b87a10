//! Runs that PyTorch began and saved go on here as they did there: `tests/fixtures/torch_state.py` wrote both.
#![cfg(feature = "pytorch")]

use lapidary::{ErrorKind, Optimizer, OptimizerExt, SlotValues, State, format::torch::StateDict, optim::*};
use proptest::prelude::*;
use serde::Deserialize;
use std::{collections::BTreeMap, fs, path::PathBuf};

#[derive(Deserialize)]
struct Fixture {
    /// Of each step after the saved one, of each parameter.
    grads: Vec<[Vec<f32>; 2]>,
    runs: BTreeMap<String, Run>,
}

#[derive(Deserialize)]
struct Run {
    /// The parameters when it was saved.
    start: [Vec<f32>; 2],
    end: [Vec<f32>; 2],
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn fixture() -> Fixture {
    serde_json::from_str(&fs::read_to_string(path("torch_state.json")).unwrap()).unwrap()
}

fn saved(name: &str) -> StateDict {
    StateDict::open_key(path("torch_state.pt"), name).unwrap()
}

fn params<O: Optimizer<f32> + Copy + 'static>(optimizer: O) -> Params<f32> {
    let mut params = Params::new();
    let groups = [params.group(optimizer), params.group(optimizer)];
    // Added the other way round: groups come first.
    params.add("b", &[3], groups[1]).unwrap();
    params.add("w", &[2, 3], groups[0]).unwrap();
    params
}

/// Goes on from the saved state, by an optimizer whose rates the file tells.
fn goes_on(name: &str, optimizer: impl Optimizer<f32> + Copy + 'static) {
    let Fixture { grads, mut runs } = fixture();
    let Run { start: [mut w, mut b], end } = runs.remove(name).unwrap();
    let mut params = params(optimizer);
    saved(name).restore_params(&mut params).unwrap();
    for [gw, gb] in &grads {
        params.step(&mut [Update::new(&mut b, gb), Update::shaped(&mut w, gw, &[2, 3]).unwrap()]).unwrap();
    }
    for (x, y) in w.iter().chain(&b).zip(end.iter().flatten()) {
        assert!((x - y).abs() <= 1e-6 * y.abs().max(1e-1), "{name}: {x} is not {y}");
    }
}

#[test]
fn runs_go_on_as_pytorchs_did() {
    let sgd = Sgd::new(9.0).unwrap();
    goes_on("sgd", sgd);
    goes_on("momentum", sgd.with_momentum(0.9).unwrap().with_dampening(0.5).unwrap());
    let nesterov = sgd.with_nesterov(0.9).unwrap().with_weight_decay(0.1).unwrap();
    goes_on("nesterov", nesterov);
    goes_on("adam", Adam::new(9.0).unwrap().with_amsgrad());
    goes_on("adamw", AdamW::new(9.0).unwrap());
    let rmsprop = RmsProp::new(9.0).unwrap().with_momentum(0.9).unwrap();
    goes_on("rmsprop", rmsprop.with_centered());
    goes_on("rmsprop_momentum", rmsprop);
    goes_on("adagrad", Adagrad::new(9.0).unwrap().with_learning_rate_decay(0.1).unwrap());
    goes_on("adadelta", Adadelta::new(9.0).unwrap());
    goes_on("adamax", Adamax::new(9.0).unwrap());
    goes_on("nadam", NAdam::new(9.0).unwrap());
    goes_on("radam", RAdam::new(9.0).unwrap());
    goes_on("adafactor", Adafactor::new(9.0).unwrap());
    // What means something else by Keras is converted. Its eps stands elsewhere: there is none.
    goes_on("nesterov", nesterov.with_convention(Convention::Keras).unwrap());
    goes_on(
        "rmsprop_momentum",
        rmsprop.with_convention(Convention::Keras).unwrap().with_alpha(0.99).unwrap().with_eps(0.0).unwrap(),
    );
}

#[test]
fn all_files_say_the_same() {
    let adamw = AdamW::new(9.0).unwrap();
    let read = |state: StateDict| {
        let mut params = params(adamw);
        state.restore_params(&mut params).unwrap();
        assert_eq!(
            (state.learning_rate(0), state.learning_rate(1), state.learning_rate(2)),
            (Some(0.01), Some(0.02), None)
        );
        format!("{params:?}")
    };
    let from = read(saved("adamw"));
    assert_eq!(read(StateDict::open(path("adamw.pt")).unwrap()), from);
    assert_eq!(read(StateDict::open_safetensors(path("adamw.safetensors")).unwrap()), from);
    assert!(from.contains("steps: 3"));
}

#[test]
fn state_in_other_types_is_rounded() {
    let (file, adamw) = (saved("adamw"), AdamW::new(0.01).unwrap());
    let restore = |mut state: State| {
        file.restore_state(1, &mut state).unwrap();
        assert_eq!(state.steps(), 3);
        let values = ["exp_avg", "exp_avg_sq"].map(|name| state.slot(name).unwrap().values().clone());
        values.map(|values: SlotValues| (0..3).map(|i| values.get(i).unwrap()).collect::<Vec<_>>()).concat()
    };
    let exact = restore(OptimizerExt::<f32>::init(&adamw, &vec![0f32; 3]).unwrap());
    assert_eq!(restore(adamw.init(&vec![0f64; 3]).unwrap()), exact);
    let near = |values: Vec<f64>, part: f64| {
        values.iter().zip(&exact).for_each(|(x, y)| assert!((x - y).abs() <= part * y.abs(), "{x} {y}"));
    };
    near(restore(Compact::bf16(adamw).init(&vec![0f32; 3]).unwrap()), 1.0 / 256.0);
    near(restore(Compact::eight_bit(adamw).init(&vec![0f32; 3]).unwrap()), 1.0 / 16.0);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_moves_nothing() {
    let refused = |file: &StateDict, mut params: Params<f32>, name: Option<&str>| {
        let before = format!("{params:?}");
        let error = file.restore_params(&mut params).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::State, name), "{error}");
        assert_eq!(format!("{params:?}"), before);
    };
    let (adam, adamw) = (Adam::new(0.1).unwrap(), AdamW::new(0.1).unwrap());
    refused(&saved("adam"), params(adam), Some("b"));
    refused(&saved("adamw"), params(adam.with_amsgrad()), Some("b"));
    refused(&saved("adamw"), params(Ema::new(adamw, 0.9).unwrap()), Some("b"));
    refused(&saved("nesterov"), params(adam), Some("b"));
    refused(&saved("adamw"), params(NAdam::new(0.1).unwrap()), Some("b"));
    let mut other = Params::new();
    let groups = [other.group(adamw), other.group(adamw)];
    other.add("b", &[3], groups[1]).unwrap();
    refused(&saved("adamw"), other, None);
    let mut other = Params::new();
    let groups = [other.group(adamw), other.group(adamw)];
    other.add("b", &[3], groups[1]).unwrap();
    other.add("w", &[3, 2], groups[0]).unwrap();
    refused(&saved("adamw"), other, Some("w"));
    let mut state = adamw.init(&vec![0f32; 3]).unwrap();
    assert_eq!(saved("adamw").restore_state(2, &mut state).unwrap_err().kind(), ErrorKind::State);
    // No state in the file: only of a parameter that is fresh here too, or has none.
    let momentum = Sgd::new(0.1).unwrap().with_momentum(0.9).unwrap();
    let mut state = momentum.init(&vec![0f32; 3]).unwrap();
    saved("sgd").restore_state(1, &mut state).unwrap();
    state.set_steps(1);
    assert_eq!(saved("sgd").restore_state(1, &mut state).unwrap_err().kind(), ErrorKind::State);
}

fn safetensors(tensors: &[(&str, &str, &[usize], &[u8])]) -> Result<StateDict, lapidary::Error> {
    let mut data = Vec::new();
    let mut header = serde_json::Map::new();
    for (name, dtype, shape, bytes) in tensors {
        let place = [data.len(), data.len() + bytes.len()];
        header.insert(name.to_string(), serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": place}));
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::Object(header).to_string();
    StateDict::decode_safetensors([&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat())
}

#[test]
fn keys_are_checked() {
    let (one, buffer) = (1f32.to_le_bytes(), ("state.0.momentum_buffer", "F32", &[1][..], &2f32.to_le_bytes()[..]));
    let sgd = Sgd::new(0.1).unwrap().with_momentum(0.9).unwrap();
    let mut state = sgd.init(&vec![0f32; 1]).unwrap();
    safetensors(&[buffer]).unwrap().restore_state(0, &mut state).unwrap();
    assert_eq!((state.steps(), state.slot("momentum_buffer").unwrap().values().get(0)), (1, Some(2.0)));
    // Keras's momentum needs a rate, Adam a count.
    let before = state.clone();
    let mut velocity = sgd.with_convention(Convention::Keras).unwrap().init(&vec![0f32; 1]).unwrap();
    assert_eq!(safetensors(&[buffer]).unwrap().restore_state(0, &mut velocity).unwrap_err().kind(), ErrorKind::State);
    let moments = [("state.0.exp_avg", "F32", &[1][..], &one[..]), ("state.0.exp_avg_sq", "F32", &[1], &one)];
    let mut adam = Adam::new(0.1).unwrap().init(&vec![0f32; 1]).unwrap();
    assert_eq!(safetensors(&moments).unwrap().restore_state(0, &mut adam).unwrap_err().kind(), ErrorKind::State);
    for step in [-1f32, 0.5, f32::NAN, f32::INFINITY] {
        let bytes = step.to_le_bytes();
        let file = safetensors(&[buffer, ("state.0.step", "F32", &[], &bytes)]).unwrap();
        assert_eq!(file.restore_state(0, &mut state).unwrap_err().kind(), ErrorKind::Format);
    }
    assert_eq!(state, before);
    let list = |indices: &[i64]| indices.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<_>>();
    for wrong in [
        &[][..],
        &[("fc.weight", "F32", &[1][..], &one[..])],
        &[("state.x.step", "F32", &[], &one)],
        &[("state.-1.step", "F32", &[], &one)],
        &[("state.0.step", "U8", &[4], &one)],
        &[("param_groups.0.lr", "F32", &[], &one)],
        &[("param_groups.1.params", "I64", &[1], &list(&[0]))],
        &[("param_groups.0.params", "I64", &[2], &list(&[0, 0]))],
        &[("param_groups.0.params", "I64", &[1], &list(&[-1]))],
        &[("param_groups.0.params", "I64", &[1], &list(&[1])), buffer],
    ] {
        assert_eq!(safetensors(wrong).unwrap_err().kind(), ErrorKind::Format, "{wrong:?}");
    }
}

fn temporary(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("lapidary-torch-{}-{name}.pt", std::process::id()));
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn other_files_are_refused() {
    assert_eq!(StateDict::open(path("none.pt")).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(StateDict::open_safetensors(path("none.pt")).unwrap_err().kind(), ErrorKind::Io);
    let format = |state: Result<StateDict, lapidary::Error>| assert_eq!(state.unwrap_err().kind(), ErrorKind::Format);
    format(StateDict::open(path("torch_state.pt")));
    format(StateDict::open_key(path("torch_state.pt"), "lion"));
    format(StateDict::open(path("torch_state.json")));
    format(StateDict::open(path("adamw.safetensors")));
    format(StateDict::open_safetensors(path("adamw.pt")));
    let whole = fs::read(path("adamw.pt")).unwrap();
    for end in (0..whole.len()).step_by(7) {
        let path = temporary("cut", &whole[..end]);
        format(StateDict::open(&path));
        fs::remove_file(path).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn damaged_files_are_an_error_or_a_state(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = fs::read(path("adamw.pt")).unwrap();
        for (at, byte) in places {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let path = temporary("damaged", &bytes);
        let mut params = params(AdamW::new(0.1).unwrap());
        let before = format!("{params:?}");
        if StateDict::open(&path).and_then(|file| file.restore_params(&mut params)).is_err() {
            prop_assert_eq!(format!("{params:?}"), before);
        }
        fs::remove_file(path).unwrap();
    }
}
