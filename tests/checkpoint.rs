//! Checkpoints: a run that was saved and goes on is the run that never stopped, and what does not fit moves nothing.
#![cfg(feature = "safetensors")]

use lapidary::{
    Element, ErrorKind, LearningRate, Mask, Optimizer, OptimizerExt, Resume, Schema, State, Step, TensorMut, TensorRef,
    format::checkpoint::{Checkpoint, Loaded},
    half::{bf16, f16},
    optim::*,
};
use proptest::prelude::*;

/// One of each, with the switches that change the state.
fn optimizers<T: Element>() -> Vec<Box<dyn Optimizer<T>>> {
    let sgd = || Sgd::new(0.1).unwrap();
    let adam = || Adam::new(0.01).unwrap();
    #[allow(unused_mut, reason = "Muon is behind a feature")]
    let mut all: Vec<Box<dyn Optimizer<T>>> = vec![
        Box::new(sgd()),
        Box::new(sgd().with_momentum(0.9).unwrap()),
        Box::new(sgd().with_nesterov(0.9).unwrap().with_convention(Convention::Keras).unwrap()),
        Box::new(Adagrad::new(0.1).unwrap()),
        Box::new(adam()),
        Box::new(adam().with_amsgrad()),
        Box::new(AdamW::new(0.01).unwrap()),
        Box::new(RmsProp::new(0.01).unwrap().with_momentum(0.9).unwrap().with_centered()),
        Box::new(Adadelta::new(1.0).unwrap()),
        Box::new(Adamax::new(0.01).unwrap()),
        Box::new(NAdam::new(0.01).unwrap()),
        Box::new(RAdam::new(0.01).unwrap()),
        Box::new(Adafactor::new(0.01).unwrap()),
        Box::new(Lion::new(0.01).unwrap()),
        Box::new(Lamb::new(0.01).unwrap()),
        Box::new(ScheduleFree::new(0.01).unwrap()),
        Box::new(Ema::new(adam(), 0.9).unwrap().with_warm_up()),
        Box::new(Lookahead::new(NAdam::new(0.01).unwrap(), 2, 0.5).unwrap()),
        Box::new(Compact::eight_bit(adam())),
        Box::new(Compact::eight_bit(Lion::new(0.01).unwrap())),
        Box::new(Compact::bf16(sgd().with_momentum(0.9).unwrap())),
        Box::new(Ema::new(Compact::eight_bit(NAdam::new(0.01).unwrap()), 0.9).unwrap()),
    ];
    #[cfg(feature = "linalg")]
    all.push(Box::new(Muon::new(0.01).unwrap()));
    all
}

fn numbers<T: Element>(len: usize, seed: usize) -> Vec<T> {
    (0..len).map(|i| T::from_f64(((i * 31 + seed * 7) as f64).sin())).collect()
}

fn step<T: Element>(optimizer: &dyn Optimizer<T>, param: &mut [T], shape: &[usize], state: &mut State, seed: usize) {
    let grad: Vec<T> = numbers(param.len(), seed);
    let grad = TensorRef::new(&grad, shape).unwrap();
    optimizer.step(Step::new(TensorMut::new(param, shape).unwrap(), grad, state)).unwrap();
}

/// Saves after `before` steps, and goes on for three with what was read.
fn goes_on<T: Element>(shape: &[usize], before: usize) {
    let len = shape.iter().product();
    for optimizer in optimizers::<T>() {
        let optimizer = &*optimizer;
        if optimizer.supports(shape).is_err() {
            continue;
        }
        let mut param: Vec<T> = numbers(len, 0);
        let mut state = optimizer.init(TensorRef::new(&param, shape).unwrap()).unwrap();
        let mut again = state.clone();
        (0..before).for_each(|i| step(optimizer, &mut param, shape, &mut state, i));
        let mut copy = param.clone();
        let bytes = Checkpoint::new().with_state("w", &state).unwrap().encode().unwrap();
        Loaded::decode(bytes).unwrap().restore_state("w", &mut again).unwrap();
        assert_eq!(again, state, "{optimizer:?}");
        for i in before..before + 3 {
            step(optimizer, &mut param, shape, &mut state, i);
            step(optimizer, &mut copy, shape, &mut again, i);
        }
        let bits = |values: &[T]| values.iter().map(|x| x.to_f64().to_bits()).collect::<Vec<_>>();
        assert_eq!((bits(&copy), &again), (bits(&param), &state), "{optimizer:?}");
    }
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop::sample::select(vec![0, 1, 2, 3, 7, 13, 19]), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_optimizer_goes_on_as_if_it_had_not_stopped(shape in shapes(), before in 0usize..5) {
        goes_on::<f32>(&shape, before);
        goes_on::<f64>(&shape, before);
        goes_on::<f16>(&shape, before);
        goes_on::<bf16>(&shape, before);
    }
}

/// Two groups, a mask, a frozen parameter, and one in 8 bits.
fn model() -> (Params<f32>, [GroupId; 2]) {
    let mut params = Params::new();
    let slow = params.group(NAdam::new(0.01).unwrap());
    let fast = params.group(Compact::eight_bit(AdamW::new(0.1).unwrap()));
    for (name, shape, group) in
        [("a", &[3, 5][..], slow), ("b", &[521], fast), ("c", &[], slow), ("none", &[0, 2], fast)]
    {
        params.add(name, shape, group).unwrap();
    }
    (params, [slow, fast])
}

fn weights() -> [Vec<f32>; 4] {
    [15, 521, 1, 0].map(|len| numbers(len, 3))
}

fn train(params: &mut Params<f32>, [a, b, c, none]: &mut [Vec<f32>; 4], scaler: &mut Scaler, seed: usize) {
    let [ga, gb, gc, gnone] = [15, 521, 1, 0].map(|len| numbers::<f32>(len, seed));
    let mut updates = [
        Update::shaped(a, &ga, &[3, 5]).unwrap(),
        Update::new(b, &gb),
        Update::shaped(c, &gc, &[]).unwrap(),
        Update::shaped(none, &gnone, &[0, 2]).unwrap(),
    ];
    params.step_with(&mut updates, StepOptions::new().scaler(scaler)).unwrap();
}

fn path(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("lapidary-checkpoint-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}

#[test]
fn a_whole_run_goes_on_as_if_it_had_not_stopped() {
    let schedule = Schedule::cosine(0.1, 20, 0.0).unwrap();
    let new =
        || (model(), Scaler::new(4.0).unwrap().with_interval(3).unwrap(), Plateau::new(0.01).unwrap().with_patience(1));
    let turn = |run: &mut ((Params<f32>, [GroupId; 2]), Scaler, Plateau), weights: &mut _, i: u64| {
        let ((params, [slow, fast]), scaler, plateau) = run;
        params.set_learning_rate(*slow, plateau.observe(1.0)).unwrap();
        params.set_learning_rate(*fast, schedule.rate(i)).unwrap();
        train(params, weights, scaler, i as usize);
    };
    let (mut run, mut weights) = (new(), weights());
    run.0.0.set_mask("a", Some(Mask::from_fn(&[3, 5], |i| i % 3 != 0).unwrap())).unwrap();
    run.0.0.freeze("b", true).unwrap();
    (0..7).for_each(|i| turn(&mut run, &mut weights, i));
    run.0.0.freeze("b", false).unwrap();
    run.0.0.freeze("c", true).unwrap();
    (7..9).for_each(|i| turn(&mut run, &mut weights, i));

    let path = path("run.safetensors");
    let ((params, _), scaler, plateau) = &run;
    let checkpoint = Checkpoint::new().with_params(params).unwrap().with_number("step", 9.0).unwrap();
    let checkpoint = checkpoint.with_resume("scaler", scaler).unwrap().with_resume("plateau", plateau).unwrap();
    checkpoint.save(&path).unwrap();
    assert_eq!(checkpoint.encode().unwrap(), std::fs::read(&path).unwrap());

    let mut again = new();
    let loaded = Loaded::open(&path).unwrap();
    // What is not in the checkpoint is taken away.
    again.0.0.set_mask("b", Some(Mask::keep_all(&[521]).unwrap())).unwrap();
    again.0.0.freeze("a", true).unwrap();
    loaded.restore_params(&mut again.0.0).unwrap();
    loaded.resume("scaler", &mut again.1).unwrap();
    loaded.resume("plateau", &mut again.2).unwrap();
    assert_eq!(format!("{again:?}"), format!("{run:?}"));
    let mut copy = weights.clone();
    for i in loaded.number("step").unwrap() as u64..20 {
        turn(&mut run, &mut weights, i);
        turn(&mut again, &mut copy, i);
    }
    assert_eq!((copy, format!("{again:?}")), (weights, format!("{run:?}")));
    std::fs::remove_file(path).unwrap();
}

fn saved() -> Vec<u8> {
    let (mut params, groups) = model();
    params.set_mask("a", Some(Mask::from_fn(&[3, 5], |i| i % 3 != 0).unwrap())).unwrap();
    params.set_learning_rate(groups[0], 0.5).unwrap();
    let mut scaler = Scaler::new(4.0).unwrap();
    train(&mut params, &mut weights(), &mut scaler, 1);
    let alone = Adam::new(0.1).unwrap().init(&vec![0f32; 3]).unwrap();
    let checkpoint = Checkpoint::new().with_params(&params).unwrap().with_resume("scaler", &scaler).unwrap();
    checkpoint.with_state("alone", &alone).unwrap().with_number("step", f64::INFINITY).unwrap().encode().unwrap()
}

/// That it is refused, by kind and name, and nothing has moved.
fn refused(loaded: &Loaded, mut params: Params<f32>, kind: ErrorKind, name: Option<&str>) {
    let before = format!("{params:?}");
    let error = loaded.restore_params(&mut params).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (kind, name), "{error}");
    assert_eq!(format!("{params:?}"), before);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_moves_nothing() {
    let loaded = Loaded::decode(saved()).unwrap();
    let adamw = || Compact::eight_bit(AdamW::new(0.1).unwrap());
    let build = |last: &dyn Fn(&mut Params<f32>, [GroupId; 2])| {
        let mut params = Params::new();
        let slow = params.group(NAdam::new(0.01).unwrap());
        let fast = params.group(adamw());
        params.add("a", &[3, 5], slow).unwrap();
        params.add("c", &[], slow).unwrap();
        params.add("none", &[0, 2], fast).unwrap();
        last(&mut params, [slow, fast]);
        params
    };
    let b = |optimizer: fn() -> Box<dyn Optimizer<f32>>| {
        let mut params = Params::new();
        let slow = params.group(NAdam::new(0.01).unwrap());
        let fast = params.group(optimizer());
        params.add("a", &[3, 5], slow).unwrap();
        params.add("b", &[521], fast).unwrap();
        params.add("c", &[], slow).unwrap();
        params.add("none", &[0, 2], slow).unwrap();
        params
    };
    let state = ErrorKind::State;
    refused(&loaded, build(&|_, _| {}), state, Some("b"));
    refused(&loaded, build(&|p, [_, fast]| p.add("b", &[522], fast).unwrap()), state, Some("b"));
    refused(&loaded, build(&|p, [_, fast]| p.add("b", &[1, 521], fast).unwrap()), state, Some("b"));
    refused(&loaded, build(&|p, [slow, _]| p.add("b", &[521], slow).unwrap()), state, Some("b"));
    let more = |p: &mut Params<f32>, [slow, fast]: [GroupId; 2]| {
        p.add("b", &[521], fast).unwrap();
        p.add("more", &[1], slow).unwrap();
    };
    refused(&loaded, build(&more), state, Some("more"));
    let group = |p: &mut Params<f32>, [_, fast]: [GroupId; 2]| {
        p.add("b", &[521], fast).unwrap();
        p.group(adamw());
    };
    refused(&loaded, build(&group), state, None);
    // Another optimizer, other slots, another precision; and at last a right one in another group.
    refused(&loaded, b(|| Box::new(Compact::eight_bit(Adam::new(0.1).unwrap()))), state, Some("b"));
    refused(&loaded, b(|| Box::new(Compact::eight_bit(AdamW::new(0.1).unwrap().with_amsgrad()))), state, Some("b"));
    refused(&loaded, b(|| Box::new(Compact::bf16(AdamW::new(0.1).unwrap()))), state, Some("b"));
    refused(&loaded, b(|| Box::new(AdamW::new(0.1).unwrap())), state, Some("b"));
    refused(&loaded, b(|| Box::new(Compact::eight_bit(AdamW::new(0.1).unwrap()))), state, Some("none"));

    let error = loaded.restore_params(&mut Params::<f64>::new()).unwrap_err();
    assert_eq!(error.kind(), state);
    let mut wide = Adam::new(0.1).unwrap().init(&vec![0f64; 3]).unwrap();
    assert_eq!(loaded.restore_state("alone", &mut wide).unwrap_err().tensor(), Some("alone"));
    assert_eq!(loaded.restore_state("lost", &mut wide).unwrap_err().tensor(), Some("lost"));
    let mut plateau = Plateau::new(0.1).unwrap();
    assert_eq!(loaded.resume("scaler", &mut plateau).unwrap_err().tensor(), Some("scaler"));
    assert_eq!(loaded.resume("plateau", &mut plateau).unwrap_err().kind(), state);
    assert_eq!(plateau, Plateau::new(0.1).unwrap());
    assert_eq!(loaded.number("epoch").unwrap_err().kind(), state);
    assert_eq!(loaded.number("step").unwrap(), f64::INFINITY);
    assert_eq!(loaded.names().collect::<Vec<_>>(), ["a", "alone", "b", "c", "none"]);
    let outside = Checkpoint::new().encode().unwrap();
    refused(&Loaded::decode(outside).unwrap(), model().0, state, None);
}

/// Refuses any rate but its own.
#[derive(Debug)]
struct Stubborn;

impl LearningRate for Stubborn {
    fn learning_rate(&self) -> f64 {
        1.0
    }
    fn set_learning_rate(&mut self, learning_rate: f64) -> lapidary::Result<()> {
        match learning_rate {
            1.0 => Ok(()),
            other => Err(lapidary::Error::argument("learning_rate", other, "1")),
        }
    }
}

impl Optimizer<f32> for Stubborn {
    fn schema(&self, _: &[usize]) -> Schema {
        Schema::new("Sgd")
    }
    fn step(&self, _: Step<'_, f32>) -> lapidary::Result<()> {
        Ok(())
    }
}

#[test]
fn a_learning_rate_that_is_refused_changes_no_group() {
    let two = |second: Box<dyn Optimizer<f32>>| {
        let mut params = Params::new();
        let groups = [params.group(Sgd::new(0.5).unwrap()), params.group(second)];
        groups.iter().zip(["a", "b"]).for_each(|(group, name)| params.add(name, &[1], *group).unwrap());
        params
    };
    let params = two(Box::new(Sgd::new(0.25).unwrap()));
    let loaded = Loaded::decode(Checkpoint::new().with_params(&params).unwrap().encode().unwrap()).unwrap();
    let mut other = two(Box::new(Stubborn));
    other.state_mut("a").unwrap().set_steps(3);
    refused(&loaded, other, ErrorKind::Argument, None);
}

#[test]
fn names_are_unique() {
    let (params, _) = model();
    let state = Adam::new(0.1).unwrap().init(&vec![0f32; 3]).unwrap();
    let start = || Checkpoint::new().with_params(&params).unwrap();
    assert_eq!(start().with_params(&params).unwrap_err().kind(), ErrorKind::Argument);
    assert_eq!(start().with_state("a", &state).unwrap_err().kind(), ErrorKind::Argument);
    let tricky = State::new::<f32>(&[3], Schema::new("x").slot("exp_avg.codes", &[3], 0.0)).unwrap();
    assert_eq!(start().with_state("b", &tricky).unwrap_err().kind(), ErrorKind::Argument);
    let tricky = State::new::<f32>(&[3], Schema::new("x").slot("b", &[3], 0.0)).unwrap();
    let outer = State::new::<f32>(&[3], Schema::new("x").slot("a.b", &[3], 0.0)).unwrap();
    let twice = Checkpoint::new().with_state("x.a", &tricky).unwrap().with_state("x", &outer);
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::Argument);
    assert!(start().with_number("n", 1.0).unwrap().with_number("n", 1.0).is_err());
    let scaler = Scaler::new(1.0).unwrap();
    assert!(start().with_resume("n", &scaler).unwrap().with_resume("n", &scaler).is_err());
}

#[test]
fn a_file_survives_a_write_that_fails() {
    let path = path("kept.safetensors");
    let state = Adam::new(0.1).unwrap().init(&vec![1f32; 3]).unwrap();
    let checkpoint = || Checkpoint::new().with_state("w", &state).unwrap();
    checkpoint().save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(checkpoint().save(path.join("below")).unwrap_err().kind(), ErrorKind::Io);
    // Its header is longer than readers accept.
    let long = "n".repeat(100_000_000);
    assert_eq!(checkpoint().with_number(&long, 0.0).unwrap().save(&path).unwrap_err().kind(), ErrorKind::Argument);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(Loaded::open(path.with_extension("no")).unwrap_err().kind(), ErrorKind::Io);
    std::fs::remove_file(path).unwrap();
}

/// Numbers out of range, as a hostile writer would have them.
struct Fake(Vec<(&'static str, f64)>);

impl Resume for Fake {
    fn numbers(&self) -> Vec<(&'static str, f64)> {
        self.0.clone()
    }
    fn resume(&mut self, _: &dyn Fn(&str) -> lapidary::Result<f64>) -> lapidary::Result<()> {
        Ok(())
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for wrong in [f64::NAN, f64::INFINITY, -1.0, 0.5] {
        let fake = Fake(vec![("scale", 1.0), ("good_steps", wrong)]);
        let loaded = Loaded::decode(Checkpoint::new().with_resume("s", &fake).unwrap().encode().unwrap()).unwrap();
        let mut scaler = Scaler::new(2.0).unwrap();
        let error = loaded.resume("s", &mut scaler).unwrap_err();
        assert_eq!((error.kind(), error.tensor(), scaler.scale()), (ErrorKind::Argument, Some("s"), 2.0));
    }
    let mut state = Sgd::new(0.1).unwrap().init(&vec![0f32; 3]).unwrap();
    state.set_steps(u64::MAX);
    let bytes = Checkpoint::new().with_state("w", &state).unwrap().encode().unwrap();
    assert_eq!(Loaded::decode(bytes).unwrap_err().kind(), ErrorKind::Format);
}

/// A checkpoint whose header was changed and whose checksum was made right again.
fn forged(change: impl Fn(&str) -> String) -> lapidary::Result<Loaded> {
    let bytes = saved();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(length);
    let mut header: serde_json::Value = serde_json::from_str(&change(std::str::from_utf8(header).unwrap())).unwrap();
    let notes = header["__metadata__"]["notes"].as_str().unwrap().to_string();
    let sum = crc32fast::hash(&[data, notes.as_bytes()].concat());
    header["__metadata__"]["checksum"] = format!("{sum:08x}").into();
    let header = header.to_string();
    Loaded::decode([&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat())
}

#[test]
fn forged_notes_are_refused() {
    assert!(forged(str::to_string).is_ok());
    for (from, to) in [
        ("lapidary-checkpoint", "other"),
        (r#""version":"1""#, r#""version":"2""#),
        (r#"non-negative 8-bit blocks"#, "f32"),
        (r#"non-negative 8-bit blocks"#, "4-bit blocks"),
        (r#""a.exp_avg""#, r#""a.exp_age""#),
        (r#"[\"exp_avg_sq\",\"f32\"]"#, r#"[\"exp_avg\",\"f32\"]"#),
        (r#"\"masked\":true"#, r#"\"masked\":false"#),
        (r#"\"masked\":false"#, r#"\"masked\":true"#),
        (r#"\"group\":1"#, r#"\"group\":2"#),
        (r#"\"steps\":1"#, r#"\"steps\":-1"#),
        (r#"\"steps\":1"#, r#"\"steps\":18446744073709551615"#),
        (r#"\"steps\":1"#, r#"\"steps\":1,\"more\":1"#),
        (r#"\"inf\""#, r#"\"infinite\""#),
        (r#"\"shape\":[521]"#, r#"\"shape\":[4294967296,4294967296]"#),
    ] {
        let error = forged(|header| {
            assert!(header.contains(from), "{from} in {header}");
            header.replace(from, to)
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Format, "{from} {to}");
    }
    // A signed slot as one that is not negative, and another number of exponents: told when they are restored.
    let unsigned = forged(|header| header.replace(r#"\"signed 8-bit"#, r#"\"non-negative 8-bit"#)).unwrap();
    refused(&unsigned, model().0, ErrorKind::State, Some("b"));
    let shape = forged(|header| header.replace(r#""shape":[3]"#, r#""shape":[3,1]"#)).unwrap();
    refused(&shape, model().0, ErrorKind::Format, Some("b"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn damaged_bytes_are_an_error_or_the_same(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
        let bytes = saved();
        let (mut right, _) = model();
        Loaded::decode(bytes.clone()).unwrap().restore_params(&mut right).unwrap();
        prop_assert!(Loaded::decode(bytes[..cut.index(bytes.len())].to_vec()).is_err());
        let mut damaged = bytes;
        let at = at.index(damaged.len());
        damaged[at] ^= flip;
        let (mut params, _) = model();
        let before = format!("{params:?}");
        match Loaded::decode(damaged).and_then(|loaded| loaded.restore_params(&mut params)) {
            Ok(()) => prop_assert_eq!(format!("{params:?}"), format!("{right:?}")),
            Err(_) => prop_assert_eq!(format!("{params:?}"), before),
        }
    }

    #[test]
    fn what_a_hostile_writer_changes_is_an_error_or_a_state(at in any::<prop::sample::Index>(), byte in b' '..b'~') {
        let (mut params, _) = model();
        let before = format!("{params:?}");
        let bytes = saved();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let (header, data) = bytes[8..].split_at(length);
        let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
        let mut notes = header["__metadata__"]["notes"].as_str().unwrap().as_bytes().to_vec();
        let mut data = data.to_vec();
        // One byte of the notes, and one of the numbers.
        let place = at.index(notes.len());
        notes[place] = byte;
        let place = at.index(data.len());
        data[place] ^= byte;
        let sum = crc32fast::hash(&[&data[..], &notes].concat());
        header["__metadata__"]["checksum"] = format!("{sum:08x}").into();
        header["__metadata__"]["notes"] = String::from_utf8(notes).unwrap().into();
        let header = header.to_string();
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        match Loaded::decode(file).and_then(|loaded| loaded.restore_params(&mut params)) {
            Ok(()) => train(&mut params, &mut weights(), &mut Scaler::new(1.0).unwrap(), 1),
            Err(_) => prop_assert_eq!(format!("{params:?}"), before),
        }
    }
}
