//! Configurations and reports, written and read.
#![cfg(feature = "serde")]

use lapidary::{
    Element, Granularity, Optimizer, OptimizerExt, QuantError, QuantizerExt, Step, TensorRef,
    optim::{
        Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Compact, Convention, Ema, Lamb, Lion, Lookahead, NAdam,
        Norm, Outcome, Plateau, RAdam, RmsProp, Scaler, Schedule, ScheduleFree, Sgd, Stop,
    },
    prune::{Magnitude, Pruning, Random, RigL, Select, Sensitivity, SparsityPlan, SparsitySchedule},
    quant::{
        Affine, Allocation, Awq, Budget, Candidate, Certificate, Certify, Choice, FakeQuantize, FloatFormat, Hqq,
        KMeans, Lsq, MinMax, Minifloat, MovingAverageObserver, Range, SmoothQuant, Symmetric, Table,
        layout::OrtRoundToNearest,
    },
    slim::{Aggregate, Keep, LatencyTable, Normalize, Role, Scoring},
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::fmt::Debug;

/// `value` is written as `json`, which is read as `value`, by way of TOML too; nothing else than its fields is taken.
fn written<T: Serialize + DeserializeOwned + Debug>(value: &T, json: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), json);
    let shown = format!("{value:?}");
    let same = |read: T| assert_eq!(format!("{read:?}"), shown);
    same(serde_json::from_str(json).unwrap());
    same(by_toml(value));
    let mut tree: Value = serde_json::from_str(json).unwrap();
    let places = objects(&tree);
    for place in places {
        let object = tree.pointer_mut(&place).unwrap().as_object_mut().unwrap();
        object.insert("else".into(), 1.into());
        let error = serde_json::from_value::<T>(tree.clone()).unwrap_err().to_string();
        assert!(error.contains("else") || error.contains("expected"), "{json} at {place:?}: {error}");
        tree.pointer_mut(&place).unwrap().as_object_mut().unwrap().remove("else");
    }
}

/// Where the objects of a tree are, but for those that have names of the caller's as keys.
fn objects(tree: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match tree {
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(array) => array.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    let open = ["widths", "times", "replacements", "sizes"];
    let inner = inner.into_iter().filter(|(key, _)| !open.contains(&key.as_str()));
    let inner = inner.flat_map(|(key, value)| objects(value).into_iter().map(move |place| format!("/{key}{place}")));
    let own = tree.is_object().then(String::new);
    own.into_iter().chain(inner).collect()
}

#[test]
fn optimizers_are_written_as_their_fields() {
    let adam = Adam::new(1e-3).unwrap();
    written(
        &adam,
        r#"{"learning_rate":0.001,"convention":"pytorch","betas":[0.9,0.999],"eps":1e-8,"eps_root":0.0,"weight_decay":0.0,"decay_after":0.0,"amsgrad":false,"maximize":false}"#,
    );
    written(
        &adam.with_convention(Convention::Optax).with_eps_root(0.5).unwrap().with_amsgrad(),
        r#"{"learning_rate":0.001,"convention":"optax","betas":[0.9,0.999],"eps":1e-8,"eps_root":0.5,"weight_decay":0.0,"decay_after":0.0,"amsgrad":true,"maximize":false}"#,
    );
    written(
        &AdamW::new(0.1).unwrap().with_betas(0.8, 0.95).unwrap().with_convention(Convention::Keras).unwrap(),
        r#"{"learning_rate":0.1,"convention":"keras","betas":[0.8,0.95],"eps":1e-7,"weight_decay":0.004,"amsgrad":false,"maximize":false}"#,
    );
    written(
        &Sgd::new(0.1).unwrap().with_nesterov(0.9).unwrap(),
        r#"{"learning_rate":0.1,"convention":"pytorch","momentum":0.9,"nesterov":true,"dampening":0.0,"weight_decay":0.0,"maximize":false}"#,
    );
    written(
        &Adagrad::new(0.1).unwrap().with_maximize(),
        r#"{"learning_rate":0.1,"convention":"pytorch","learning_rate_decay":0.0,"weight_decay":0.0,"initial_accumulator":0.0,"eps":1e-10,"maximize":true}"#,
    );
    written(
        &RmsProp::new(0.1).unwrap().with_centered(),
        r#"{"learning_rate":0.1,"convention":"pytorch","alpha":0.99,"eps":1e-8,"momentum":0.0,"weight_decay":0.0,"centered":true,"maximize":false}"#,
    );
    written(
        &Adadelta::new(1.0).unwrap(),
        r#"{"learning_rate":1.0,"rho":0.9,"eps":1e-6,"weight_decay":0.0,"maximize":false}"#,
    );
    written(
        &Adamax::new(1.0).unwrap(),
        r#"{"learning_rate":1.0,"betas":[0.9,0.999],"eps":1e-8,"weight_decay":0.0,"maximize":false}"#,
    );
    written(
        &NAdam::new(1.0).unwrap().with_decoupled(),
        r#"{"learning_rate":1.0,"betas":[0.9,0.999],"eps":1e-8,"momentum_decay":0.004,"weight_decay":0.0,"decoupled":true,"maximize":false}"#,
    );
    written(
        &RAdam::new(1.0).unwrap(),
        r#"{"learning_rate":1.0,"betas":[0.9,0.999],"eps":1e-8,"weight_decay":0.0,"decoupled":false,"maximize":false}"#,
    );
    written(
        &Adafactor::new(0.5).unwrap(),
        r#"{"learning_rate":0.5,"beta2_decay":-0.8,"eps1":null,"eps2":0.001,"d":1.0,"weight_decay":0.0,"maximize":false}"#,
    );
    written(
        &Lion::new(1.0).unwrap(),
        r#"{"learning_rate":1.0,"betas":[0.9,0.99],"weight_decay":0.001,"maximize":false}"#,
    );
    written(
        &Lamb::new(1.0).unwrap(),
        r#"{"learning_rate":1.0,"betas":[0.9,0.999],"eps":1e-6,"weight_decay":0.0,"maximize":false}"#,
    );
    written(
        &ScheduleFree::new(1.0).unwrap(),
        r#"{"learning_rate":1.0,"betas":[0.9,0.999],"eps":1e-8,"weight_decay":0.0,"weight_power":2.0,"maximize":false}"#,
    );
    #[cfg(feature = "linalg")]
    written(
        &lapidary::optim::Muon::new(0.1).unwrap().without_nesterov(),
        r#"{"learning_rate":0.1,"momentum":0.95,"weight_decay":0.1,"eps":1e-7,"nesterov":false,"steps":5,"coefficients":[3.4445,-4.775,2.0315],"rate_scale":"original"}"#,
    );
}

#[test]
fn what_is_around_an_optimizer_too() {
    let lion = Lion::new(1.0).unwrap();
    let inner = r#"{"learning_rate":1.0,"betas":[0.9,0.99],"weight_decay":0.001,"maximize":false}"#;
    written(&Compact::eight_bit(lion), &format!(r#"{{"optimizer":{inner},"precision":"eight_bit"}}"#));
    written(&Lookahead::new(lion, 5, 0.5).unwrap(), &format!(r#"{{"optimizer":{inner},"k":5,"alpha":0.5}}"#));
    written(
        &Ema::new(Compact::bf16(lion), 0.5).unwrap().with_warm_up(),
        &format!(r#"{{"optimizer":{{"optimizer":{inner},"precision":"bf16"}},"decay":0.5,"warm_up":true}}"#),
    );
    written(
        &Plateau::new(0.1).unwrap().with_absolute_threshold(0.5).unwrap(),
        r#"{"rate":0.1,"factor":0.1,"patience":10,"absolute":true,"threshold":0.5,"cooldown":0,"least":0.0,"eps":1e-8}"#,
    );
    written(&Scaler::new(1024.0).unwrap(), r#"{"scale":1024.0,"growth":2.0,"backoff":0.5,"interval":2000}"#);
    written(
        &Stop::after(9).with_loss_change(0.5).unwrap(),
        r#"{"iterations":9,"gradient_norm":null,"loss_change":0.5}"#,
    );
}

#[test]
fn schedules_are_written_as_what_makes_them() {
    let list: [(Schedule, &str); 10] = [
        (Schedule::constant(0.1).unwrap(), r#"{"constant":{"rate":0.1}}"#),
        (Schedule::step(0.1, 3, 0.5).unwrap(), r#"{"step":{"rate":0.1,"size":3,"gamma":0.5}}"#),
        (
            Schedule::multi_step(0.1, &[3, 5], 0.5).unwrap(),
            r#"{"multi_step":{"rate":0.1,"milestones":[3,5],"gamma":0.5}}"#,
        ),
        (Schedule::exponential(0.1, 0.5).unwrap(), r#"{"exponential":{"rate":0.1,"gamma":0.5}}"#),
        (Schedule::linear(0.1, 0.5, 1.0, 7).unwrap(), r#"{"linear":{"rate":0.1,"start":0.5,"end":1.0,"total":7}}"#),
        (Schedule::polynomial(0.1, 7, 2.0).unwrap(), r#"{"polynomial":{"rate":0.1,"total":7,"power":2.0}}"#),
        (
            Schedule::warm_restarts(0.1, 7, 2, 0.0).unwrap(),
            r#"{"warm_restarts":{"rate":0.1,"first":7,"growth":2,"least":0.0}}"#,
        ),
        (
            Schedule::one_cycle(0.1, 7, 0.3, 25.0, 1e4).unwrap(),
            r#"{"one_cycle":{"rate":0.1,"total":7,"rise":0.3,"divisor":25.0,"final_divisor":10000.0}}"#,
        ),
        (Schedule::inverse_sqrt(0.1, 7).unwrap(), r#"{"inverse_sqrt":{"rate":0.1,"scale":7}}"#),
        (
            Schedule::cosine(0.1, 7, 0.0).unwrap().with_warm_up(2, 0.5).unwrap(),
            r#"{"then":{"first":{"linear":{"rate":0.1,"start":0.5,"end":1.0,"total":2}},"until":2,"next":{"cosine":{"rate":0.1,"period":7,"least":0.0}}}}"#,
        ),
    ];
    for (schedule, json) in list {
        written(&schedule, json);
        let read: Schedule = serde_json::from_str(json).unwrap();
        assert!((0..20).all(|step| read.rate(step).to_bits() == schedule.rate(step).to_bits()), "{json}");
    }
    assert!(serde_json::from_str::<Schedule>(r#"{"cosine":{"rate":0.1,"period":0,"least":0.0}}"#).is_err());
}

#[test]
fn quantizers_are_written_with_their_groups() {
    written(&MinMax::new(4).unwrap(), r#"{"bits":4,"axis":null,"group_size":null}"#);
    let affine = Affine::new(8).unwrap().per_channel(1);
    written(&affine, r#"{"bits":8,"axis":1,"group_size":null}"#);
    let symmetric = Symmetric::new(4).unwrap().full_range().per_group(32).unwrap();
    written(&symmetric, r#"{"bits":4,"full_range":true,"axis":null,"group_size":32}"#);
    let kmeans = KMeans::new(3).unwrap().with_zero().per_block(0, 16).unwrap();
    written(&kmeans, r#"{"bits":3,"zero":true,"axis":0,"group_size":16}"#);
    written(&Table::new(&[-1.0, 0.25]).unwrap(), r#"{"levels":[-1.0,0.25],"axis":null,"group_size":null}"#);
    assert_eq!(again(&Table::nf4()), Table::nf4());
    let mx = Minifloat::mx(FloatFormat::E2m1);
    written(&mx, r#"{"format":"e2m1","mx":true,"axis":null,"group_size":32}"#);
    written(&mx.per_channel(0), r#"{"format":"e2m1","mx":true,"axis":0,"group_size":null}"#);
    written(&Minifloat::new(FloatFormat::E4m3), r#"{"format":"e4m3","mx":false,"axis":null,"group_size":null}"#);
    written(&Lsq::new(4).unwrap().unsigned(), r#"{"bits":4,"unsigned":true,"axis":null,"group_size":null}"#);
    written(
        &Hqq::new(4).unwrap().per_group(64).unwrap(),
        r#"{"bits":4,"p":0.7,"beta":10.0,"growth":1.01,"iterations":20,"axis":null,"group_size":64}"#,
    );
    written(&FakeQuantize::from(affine), r#"{"affine":{"bits":8,"axis":1,"group_size":null}}"#);
    written(&Awq::new(affine), r#"{"quantizer":{"bits":8,"axis":1,"group_size":null},"steps":20}"#);
    written(&SmoothQuant::default(), r#"{"alpha":0.5}"#);
    #[cfg(feature = "linalg")]
    written(
        &lapidary::quant::Gptq::new(affine),
        r#"{"scheme":{"affine":{"bits":8,"axis":1,"group_size":null}},"damping":0.01,"act_order":false}"#,
    );
    written(&OrtRoundToNearest::new(4, 32).unwrap(), r#"{"bits":4,"block_size":32,"symmetric":false}"#);
    written(&Range::new(-1.0, 2.0).unwrap(), r#"{"min":-1.0,"max":2.0}"#);
    written(&MovingAverageObserver::new(), r#"{"averaging_constant":0.01}"#);
    written(&Granularity::Block { axis: 0, size: 16 }, r#"{"axis":0,"group_size":16}"#);
    written(&Granularity::Tensor, r#"{"axis":null,"group_size":null}"#);
    let choice = |bytes, error| Choice { label: "4 bits".into(), bytes, error };
    written(
        &Candidate::new("w", vec![choice(9, 0.5)]).unwrap(),
        r#"{"name":"w","choices":[{"label":"4 bits","bytes":9,"error":0.5}]}"#,
    );
}

#[test]
fn pruners_are_written_with_their_selection() {
    let rest = r#""per_row":false,"units":null,"norm":null,"mean":false,"min_kept":0"#;
    for (select, amount) in [
        (Select::sparsity(0.5).unwrap(), r#"{"sparsity":0.5}"#),
        (Select::overall(0.5).unwrap(), r#"{"overall":0.5}"#),
        (Select::count(7), r#"{"count":7}"#),
        (Select::above(0.5).unwrap(), r#"{"above":0.5}"#),
        (Select::above(f64::INFINITY).unwrap(), r#"{"above":"inf"}"#),
        (Select::n_of_m(2, 4).unwrap(), r#"{"n_of_m":{"keep":2,"of":4}}"#),
        (Select::budget(9), r#"{"budget":9}"#),
    ] {
        written(&select, &format!(r#"{{"amount":{amount},{rest}}}"#));
    }
    let blocks = Select::count(1).in_blocks(4, 1).unwrap().with_norm(2.0).unwrap().with_mean().with_min_kept(3);
    written(
        &blocks,
        r#"{"amount":{"count":1},"per_row":false,"units":{"blocks":{"rows":4,"cols":1}},"norm":2.0,"mean":true,"min_kept":3}"#,
    );
    written(
        &Select::count(1).along(2).per_row(),
        r#"{"amount":{"count":1},"per_row":true,"units":{"slices":{"axis":2}},"norm":null,"mean":false,"min_kept":0}"#,
    );
    let inner = format!(r#"{{"amount":{{"sparsity":0.5}},{rest}}}"#);
    written(&Magnitude::sparsity(0.5).unwrap(), &format!(r#"{{"criterion":{{}},"select":{inner}}}"#));
    written(
        &Select::sparsity(0.5).unwrap().by(Random::new(3)),
        &format!(r#"{{"criterion":{{"seed":3}},"select":{inner}}}"#),
    );
    assert!(
        serde_json::from_str::<Pruning<Magnitude>>(r#"{"criterion":{},"select":{"amount":{"sparsity":2}}}"#).is_err()
    );
    written(&RigL::new(1000).unwrap(), r#"{"end":1000,"fraction":0.3,"every":100}"#);
    written(
        &SparsitySchedule::cubic(0.9, 10..=80, 10).unwrap().with_initial(0.5).unwrap(),
        r#"{"sparsity":0.9,"begin":10,"end":80,"every":10,"shape":{"polynomial":{"power":3.0}},"initial":0.5}"#,
    );
    written(
        &SparsitySchedule::iterative(0.9, 10, 5, 3).unwrap(),
        r#"{"sparsity":0.9,"begin":10,"end":20,"every":5,"shape":{"geometric":{"prunings":3}},"initial":0.0}"#,
    );
    let wrong = r#"{"sparsity":0.9,"begin":10,"end":21,"every":5,"shape":{"geometric":{"prunings":3}}}"#;
    assert!(serde_json::from_str::<SparsitySchedule>(wrong).unwrap_err().to_string().contains("end is 21"));
    #[cfg(feature = "linalg")]
    {
        use lapidary::prune::SparseGpt;
        let gpt = SparseGpt::new(Select::sparsity(0.5).unwrap()).unwrap();
        written(&gpt, &format!(r#"{{"select":{inner},"damping":0.01}}"#));
        assert!(serde_json::from_str::<SparseGpt>(r#"{"select":{"amount":{"count":1}}}"#).is_err());
    }
}

#[test]
fn what_is_to_be_slimmed() {
    written(
        &Keep::ratio(0.5).unwrap().with_multiple(8).unwrap(),
        r#"{"target":{"ratio":0.5},"multiple":8,"minimum":1,"approximation":false,"replacements":{}}"#,
    );
    written(
        &Keep::above(f64::NEG_INFINITY).unwrap().with_approximation().with_replacement("relu", vec![0.5]),
        r#"{"target":{"above":"-inf"},"multiple":1,"minimum":1,"approximation":true,"replacements":{"relu":[0.5]}}"#,
    );
    written(
        &Keep::widths([("fc", 3)]),
        r#"{"target":{"widths":{"fc":3}},"multiple":1,"minimum":1,"approximation":false,"replacements":{}}"#,
    );
    let table = LatencyTable::new().with("fc", 4, 8, 0.5).unwrap();
    written(&table, r#"{"times":{"fc":[[4,8,0.5]]}}"#);
    written(
        &Keep::latency(2.5, table).unwrap(),
        r#"{"target":{"latency":[2.5,{"times":{"fc":[[4,8,0.5]]}}]},"multiple":1,"minimum":1,"approximation":false,"replacements":{}}"#,
    );
    for (keep, target) in [(Keep::params(5), "params"), (Keep::macs(5), "macs")] {
        written(
            &keep,
            &format!(
                r#"{{"target":{{"{target}":5}},"multiple":1,"minimum":1,"approximation":false,"replacements":{{}}}}"#
            ),
        );
    }
    let nan = "target.macs = 5\nreplacements = { relu = [0.5, nan] }";
    let error = toml::from_str::<Keep>(nan).unwrap_err().to_string();
    assert!(error.contains("replacement") && error.contains("NaN"), "{error}");
    for bad in [r#"{"target":{"ratio":1.5}}"#, r#"{"target":{"above":"nan"}}"#, r#"{"target":{"macs":-1}}"#] {
        assert!(serde_json::from_str::<Keep>(bad).is_err(), "{bad}");
    }
    assert!(serde_json::from_str::<LatencyTable>(r#"{"times":{"fc":[[4,8,-0.5]]}}"#).is_err());
    let scoring = Scoring::new().with_aggregate(Aggregate::Max).with_normalize(Normalize::None);
    written(&scoring.with_roles(&[Role::Produces]), r#"{"aggregate":"max","normalize":"none","roles":["produces"]}"#);
}

/// What comes back from JSON, and from TOML the same.
fn again<T: Serialize + DeserializeOwned + Debug>(value: &T) -> T {
    let read: T = serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap();
    assert_eq!(format!("{:?}", by_toml(value)), format!("{read:?}"));
    read
}

/// What comes back from TOML, whose documents are tables.
fn by_toml<T: Serialize + DeserializeOwned>(value: &T) -> T {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Document<T> {
        it: T,
    }
    toml::from_str::<Document<T>>(&toml::to_string(&Document { it: value }).unwrap()).unwrap().it
}

#[test]
fn choices_are_their_names() {
    written(&Norm::L2, r#""l2""#);
    written(&Norm::Max, r#""max""#);
    written(&Budget::Bytes(5), r#"{"bytes":5}"#);
    written(&Budget::Error(0.5), r#"{"error":0.5}"#);
    written(&Budget::Error(f64::INFINITY), r#"{"error":"inf"}"#);
    for bad in [r#"{"error":-1}"#, r#"{"error":"nan"}"#] {
        let error = serde_json::from_str::<Budget>(bad).unwrap_err().to_string();
        assert!(error.starts_with("budget of error is"), "{error}");
    }
    for (convention, name) in [
        (Convention::PyTorch, "pytorch"),
        (Convention::Keras, "keras"),
        (Convention::Optax, "optax"),
        (Convention::Onnx, "onnx"),
    ] {
        written(&convention, &format!("{name:?}"));
    }
    for (format, name) in [
        (FloatFormat::E5m2, "e5m2"),
        (FloatFormat::E4m3, "e4m3"),
        (FloatFormat::E3m2, "e3m2"),
        (FloatFormat::E2m3, "e2m3"),
        (FloatFormat::E2m1, "e2m1"),
    ] {
        written(&format, &format!("{name:?}"));
    }
    for (aggregate, name) in
        [(Aggregate::L2, "l2"), (Aggregate::Sum, "sum"), (Aggregate::Mean, "mean"), (Aggregate::Max, "max")]
    {
        written(&aggregate, &format!("{name:?}"));
    }
    for (normalize, name) in [(Normalize::Mean, "mean"), (Normalize::Max, "max"), (Normalize::None, "none")] {
        written(&normalize, &format!("{name:?}"));
    }
    for (role, name) in [(Role::Produces, "produces"), (Role::Shifts, "shifts"), (Role::Consumes, "consumes")] {
        written(&role, &format!("{name:?}"));
    }
    let symmetric = Symmetric::new(4).unwrap();
    let fields = r#"{"bits":4,"full_range":false,"axis":null,"group_size":null}"#;
    written(&FakeQuantize::from(symmetric), &format!(r#"{{"symmetric":{fields}}}"#));
    #[cfg(feature = "linalg")]
    {
        use lapidary::{optim::RateScale, quant::Gptq};
        for (gptq, scheme) in [
            (Gptq::new(symmetric), format!(r#"{{"symmetric":{fields}}}"#)),
            (Gptq::new(MinMax::new(4).unwrap()), r#"{"min_max":{"bits":4,"axis":null,"group_size":null}}"#.to_string()),
        ] {
            written(&gptq, &format!(r#"{{"scheme":{scheme},"damping":0.01,"act_order":false}}"#));
        }
        written(&RateScale::Original, r#""original""#);
        written(&RateScale::MatchAdamW, r#""match_adamw""#);
    }
}

#[test]
fn a_name_is_given_once() {
    fn refused<T: DeserializeOwned + Debug>(json: &str) {
        let error = serde_json::from_str::<T>(json).unwrap_err().to_string();
        assert!(error.starts_with(r#"the name "a" is given twice"#), "{json}: {error}");
    }
    refused::<Keep>(r#"{"target":{"widths":{"a":1,"b":2,"a":1}}}"#);
    refused::<Keep>(r#"{"target":{"macs":1},"replacements":{"a":[1],"a":[2]}}"#);
    refused::<LatencyTable>(r#"{"times":{"a":[],"a":[[4,8,0.5]]}}"#);
    assert!(toml::from_str::<Keep>("target.widths = { a = 1, a = 2 }").is_err());
    assert!(serde_json::from_str::<LatencyTable>(r#"{"times":3}"#).unwrap_err().to_string().contains("by their names"));
}

#[test]
fn a_zero_has_no_sign() {
    let sgd = Sgd::new(0.1).unwrap().with_weight_decay(-0.0).unwrap().with_dampening(-0.0).unwrap();
    written(
        &sgd,
        r#"{"learning_rate":0.1,"convention":"pytorch","momentum":0.0,"nesterov":false,"dampening":0.0,"weight_decay":0.0,"maximize":false}"#,
    );
    let schedule = SparsitySchedule::one_shot(0.5, 3).unwrap().with_initial(-0.0).unwrap();
    let json = r#"{"sparsity":0.5,"begin":3,"end":3,"every":1,"shape":{"polynomial":{"power":1.0}},"initial":0.0}"#;
    written(&schedule, json);
}

#[test]
fn formats_have_their_limits() {
    let chain = |links: u64| {
        let constant = || Schedule::constant(0.1).unwrap();
        (1..=links).fold(constant(), |schedule, until| schedule.then(until, constant()))
    };
    let text = |links| serde_json::to_string(&chain(links)).unwrap();
    assert_eq!(serde_json::from_str::<Schedule>(&text(62)).unwrap(), chain(62));
    let error = serde_json::from_str::<Schedule>(&text(63)).unwrap_err().to_string();
    assert!(error.starts_with("recursion limit exceeded"), "{error}");
    let large = Random::new(u64::MAX);
    assert_eq!(serde_json::from_str::<Random>(&serde_json::to_string(&large).unwrap()).unwrap(), large);
    assert_eq!(by_toml(&large), large);
    assert!(toml::Value::try_from(large).is_err());
}

#[test]
fn what_is_left_out_is_as_documented() {
    let read = |json| serde_json::from_str::<AdamW>(json).unwrap();
    assert_eq!(read(r#"{"learning_rate":1e-3}"#), AdamW::new(1e-3).unwrap());
    let keras = AdamW::new(1e-3).unwrap().with_convention(Convention::Keras).unwrap();
    assert_eq!(read(r#"{"eps":null,"convention":"keras","learning_rate":1e-3}"#), keras);
    assert_eq!(
        serde_json::from_str::<Minifloat>(r#"{"format":"e4m3","mx":true}"#).unwrap(),
        Minifloat::mx(FloatFormat::E4m3)
    );
    assert_eq!(serde_json::from_str::<Stop>("{}").unwrap(), Stop::default());
    for without in [r#"{"betas":[0.9,0.99]}"#, "{}", "3", r#"{"learning_rate":"fast"}"#, r#"{"learning_rate":1e999}"#] {
        assert!(serde_json::from_str::<AdamW>(without).is_err(), "{without}");
    }
}

#[test]
fn what_does_not_go_together_is_refused_in_our_words() {
    fn refused<T: DeserializeOwned + Debug>(json: &str, why: &str) {
        let error = serde_json::from_str::<T>(json).unwrap_err().to_string();
        assert!(error.starts_with(why), "{json}: {error}");
    }
    refused::<Sgd>(r#"{"learning_rate":0.1,"nesterov":true}"#, "momentum is 0, must be above 0 with Nesterov");
    refused::<Sgd>(
        r#"{"learning_rate":0.1,"momentum":0.9,"nesterov":true,"dampening":0.1}"#,
        "dampening is 0.1, must be 0 with Nesterov and with Keras",
    );
    refused::<Adam>(r#"{"learning_rate":0.1,"eps_root":0.1}"#, "convention is PyTorch, must be Optax");
    refused::<AdamW>(r#"{"learning_rate":0.1,"convention":"onnx"}"#, "convention is Onnx, must be");
    refused::<AdamW>(r#"{"learning_rate":0.1,"betas":[0.9,1]}"#, "beta2 is 1.0, must be at least 0 and less than 1");
    refused::<Compact<Sgd>>(r#"{"optimizer":{"learning_rate":0.1},"precision":"full"}"#, "precision is full");
    refused::<MinMax>(r#"{"bits":9}"#, "bits is 9, must be 1 to 8");
    refused::<MinMax>(r#"{"bits":8,"group_size":0}"#, "group size is 0, must be at least 1");
    refused::<Granularity>(r#"{"group_size":0}"#, "group size is 0, must be at least 1");
    refused::<Table>(r#"{"levels":[1,0]}"#, "level is 0.0 at index 1, must be above the one before it");
    refused::<Select>(r#"{"amount":{"n_of_m":{"keep":5,"of":4}}}"#, "n of m is 5 of 4");
    refused::<Range>(r#"{"min":1,"max":0}"#, "range is 1.0 to 0.0");
    refused::<AdamW>(
        r#"{"learning_rate":0.1,"lr":1}"#,
        "unknown field `lr`, expected one of `learning_rate`, `convention`",
    );
}

type Holds = fn(f64) -> bool;
const NON_NEGATIVE: Holds = |x| (0.0..=f64::from(f32::MAX)).contains(&x);
const POSITIVE: Holds = |x| NON_NEGATIVE(x) && x > 0.0;
const RATE: Holds = |x| (0.0..1.0).contains(&x);
const SHARE: Holds = |x| (0.0..=1.0).contains(&x);

/// Any number at all, and often one at the end of a range.
fn hostile() -> impl Strategy<Value = f64> {
    let ends =
        [0.0, -0.0, 1.0, -1.0, 0.5, 1e-6, 1e38, 1e39, f64::MAX, -f64::MAX, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    prop_oneof![prop::sample::select(ends.to_vec()), any::<f64>(), -2.0..2.0]
}

/// `field` of `base` is taken as `x` just where `holds`, and is `x` then. TOML's values can be infinite, and NaN.
fn taken<T: Serialize + DeserializeOwned>(base: &str, field: &str, x: f64, holds: Holds) -> Result<(), TestCaseError> {
    let mut tree: toml::Table = toml::from_str(base).unwrap();
    tree.insert(field.into(), x.into());
    let read = tree.try_into::<T>();
    prop_assert_eq!(read.is_ok(), holds(x), "{} of {}: {:?}", field, base, x);
    if let Ok(read) = read {
        let back = toml::Value::try_from(&read).unwrap();
        prop_assert_eq!(back[field].as_float(), Some(x));
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_number_out_of_its_range_is_taken(x in hostile()) {
        let rate = "learning_rate = 0.1";
        taken::<Sgd>("", "learning_rate", x, NON_NEGATIVE)?;
        taken::<Sgd>(rate, "momentum", x, NON_NEGATIVE)?;
        taken::<Sgd>(rate, "dampening", x, |x| x.abs() <= f64::from(f32::MAX))?;
        taken::<Adam>(rate, "eps", x, NON_NEGATIVE)?;
        taken::<AdamW>(rate, "weight_decay", x, NON_NEGATIVE)?;
        taken::<Adagrad>(rate, "initial_accumulator", x, NON_NEGATIVE)?;
        taken::<RmsProp>(rate, "alpha", x, RATE)?;
        taken::<Adadelta>(rate, "rho", x, RATE)?;
        taken::<Adadelta>(rate, "eps", x, POSITIVE)?;
        taken::<Adamax>(rate, "eps", x, POSITIVE)?;
        taken::<NAdam>(rate, "momentum_decay", x, NON_NEGATIVE)?;
        taken::<RAdam>(rate, "eps", x, NON_NEGATIVE)?;
        taken::<Adafactor>(rate, "beta2_decay", x, |x| x <= 0.0 && x.is_finite())?;
        taken::<Adafactor>(rate, "d", x, POSITIVE)?;
        taken::<Lion>(rate, "weight_decay", x, NON_NEGATIVE)?;
        taken::<Lamb>(rate, "eps", x, POSITIVE)?;
        taken::<ScheduleFree>(rate, "weight_power", x, NON_NEGATIVE)?;
        taken::<Ema<Sgd>>("[optimizer]\nlearning_rate = 0.1", "decay", x, RATE)?;
        taken::<Lookahead<Sgd>>("k = 5\n[optimizer]\nlearning_rate = 0.1", "alpha", x, SHARE)?;
        taken::<Plateau>("rate = 0.1", "factor", x, RATE)?;
        taken::<Plateau>("rate = 0.1", "threshold", x, NON_NEGATIVE)?;
        taken::<Scaler>("", "scale", x, POSITIVE)?;
        taken::<Scaler>("scale = 1.0", "backoff", x, |x| POSITIVE(x) && x <= 1.0)?;
        taken::<Scaler>("scale = 1.0", "growth", x, |x| POSITIVE(x) && x >= 1.0)?;
        taken::<SmoothQuant>("", "alpha", x, SHARE)?;
        taken::<Hqq>("bits = 4", "p", x, |x| x > 0.0 && x <= 1.0)?;
        taken::<Hqq>("bits = 4", "beta", x, |x| x > 0.0 && x.is_finite())?;
        taken::<MovingAverageObserver>("", "averaging_constant", x, |x| x > 0.0 && x <= 1.0)?;
        taken::<RigL>("end = 10", "fraction", x, SHARE)?;
        taken::<SparsitySchedule>("begin = 1\nend = 9\nevery = 1\nshape.polynomial.power = 3", "sparsity", x, SHARE)?;
        taken::<SparsitySchedule>("sparsity = 0.5\nbegin = 1\nend = 9\nevery = 1\nshape.polynomial.power = 3", "initial", x, |x| (0.0..=0.5).contains(&x))?;
        taken::<Range>("max = 0.5", "min", x, |x| x.is_finite() && x <= 0.5)?;
    }

    #[test]
    fn no_beta_out_of_its_range_is_taken(a in hostile(), b in hostile()) {
        let read = |least: f64| {
            let betas = toml::Value::Array(vec![a.into(), b.into()]);
            let tree = toml::Table::from_iter([("learning_rate".to_string(), 0.1.into()), ("betas".to_string(), betas)]);
            (tree, RATE(a) && RATE(b) && a >= least)
        };
        macro_rules! all {
            ($($type:ident $least:expr),*) => {$(
                let (tree, holds) = read($least);
                prop_assert_eq!(tree.try_into::<$type>().is_ok(), holds, "{}", stringify!($type));
            )*};
        }
        all!(Adam 0.0, AdamW 0.0, Adamax 0.0, NAdam 0.0, RAdam 0.0, Lion 0.0, Lamb 0.0, ScheduleFree f64::from_bits(1));
    }

    #[test]
    fn no_text_makes_it_panic(json in r#"\{("(learning_rate|betas|bits|levels|group_size|axis|amount|count|rate)":(-?[0-9]{1,3}|null|true|\[\]|\{\}|1e999),?){0,3}\}"#) {
        let _ = serde_json::from_str::<AdamW>(&json);
        let _ = serde_json::from_str::<MinMax>(&json);
        let _ = serde_json::from_str::<Table>(&json);
        let _ = serde_json::from_str::<Select>(&json);
        let _ = serde_json::from_str::<Plateau>(&json);
    }
}

#[test]
fn an_optimizer_that_was_read_steps_to_the_same_bits() {
    fn steps<T: Element>(optimizer: &impl Optimizer<T>) -> Vec<T> {
        let mut weights: Vec<T> = (0..100).map(|i| T::from_f64(f64::from(i).sin())).collect();
        let mut state = optimizer.init(&weights).unwrap();
        for step in 0..5 {
            let gradient: Vec<T> = (0..100).map(|i| T::from_f64(f64::from(i * step).cos())).collect();
            optimizer.step(Step::new(&mut weights, &gradient, &mut state)).unwrap();
        }
        weights
    }
    let json = r#"{"learning_rate":0.017,"betas":[0.87,0.913],"weight_decay":0.033,"amsgrad":true}"#;
    let read: AdamW = serde_json::from_str(json).unwrap();
    let built = AdamW::new(0.017).unwrap().with_betas(0.87, 0.913).unwrap().with_weight_decay(0.033).unwrap();
    assert_eq!(steps::<f32>(&read), steps::<f32>(&built.with_amsgrad()));
    let sgd = Ema::new(Sgd::new(0.017).unwrap().with_nesterov(0.9).unwrap(), 0.99).unwrap();
    assert_eq!(steps::<f64>(&again(&sgd)), steps::<f64>(&sgd));
}

#[test]
fn reports_come_back_whatever_they_measured() {
    let weights = [0.0f32, 1.0, 2.0, 3.0];
    let scheme = MinMax::new(2).unwrap();
    let q = scheme.quantize(&weights).unwrap();
    let exact = q.error(&weights).unwrap();
    let json = r#"{"max_abs":0.0,"mse":0.0,"sqnr_db":"inf"}"#;
    assert_eq!(serde_json::to_string(&exact).unwrap(), json);
    assert_eq!(serde_json::from_str::<QuantError>(json).unwrap(), exact);
    assert_eq!(
        serde_json::from_str::<QuantError>(r#"{"max_abs":1,"mse":"-inf","sqnr_db":"nan"}"#).unwrap().mse,
        -f64::INFINITY
    );
    assert!(serde_json::from_str::<QuantError>(r#"{"max_abs":"far","mse":0,"sqnr_db":0}"#).is_err());

    let certificate = Certify::<f32>::certificate(&scheme, &q).unwrap();
    assert_eq!(again(&certificate), certificate);
    for bad in [r#"{"groups":[-1],"outputs":[]}"#, r#"{"groups":[],"outputs":["nan"]}"#] {
        assert!(serde_json::from_str::<Certificate>(bad).is_err(), "{bad}");
    }

    let mut sensitivity = Sensitivity::new(&[0.0, 0.5]).unwrap();
    sensitivity.measure("w", &weights, Magnitude::sparsity, |mask| Ok(mask.sparsity())).unwrap();
    let json = r#"{"ladder":[0.0,0.5],"curves":[{"name":"w","elements":4,"points":[{"sparsity":0.0,"kept":4,"error":0.0},{"sparsity":0.5,"kept":2,"error":0.5}]}]}"#;
    assert_eq!(serde_json::to_string(&sensitivity).unwrap(), json);
    assert_eq!(again(&sensitivity), sensitivity);
    for (found, wrong) in
        [("0.5,\"kept\"", "0.6,\"kept\""), ("\"kept\":2", "\"kept\":5"), ("\"error\":0.5", "\"error\":\"inf\"")]
    {
        assert!(
            json.contains(found) && serde_json::from_str::<Sensitivity>(&json.replacen(found, wrong, 1)).is_err(),
            "{wrong}"
        );
    }
    let many = format!(
        r#"{{"ladder":[0],"curves":[{}]}}"#,
        ["a", "b"]
            .map(|name| format!(
                r#"{{"name":"{name}","elements":{},"points":[{{"sparsity":0,"kept":1,"error":0}}]}}"#,
                usize::MAX
            ))
            .join(",")
    );
    let error = serde_json::from_str::<Sensitivity>(&many).unwrap_err().to_string();
    assert!(error.contains("number of elements is 2^64 or more"), "{error}");
    let plan = sensitivity.allocate(3).unwrap();
    assert_eq!(again(&plan), plan);
    let text = toml::to_string(&plan).unwrap();
    for number in ["rise = 0.5", "bound = 0.5", "error = 0.5", "sparsity = 0.5"] {
        let at = text.rfind(number).unwrap();
        let (name, _) = number.split_once('=').unwrap();
        for wrong in ["nan", "inf"] {
            let text = format!("{}{name}= {wrong}{}", &text[..at], &text[at + number.len()..]);
            let error = toml::from_str::<SparsityPlan>(&text).unwrap_err().to_string();
            assert!(error.contains("finite"), "{text}: {error}");
        }
    }
    let point =
        |kept: u64| format!(r#"{{"name":"w","elements":4,"rise":0,"point":{{"sparsity":0,"kept":{kept},"error":0}}}}"#);
    let plan = |kept| format!(r#"{{"chosen":[{},{}],"rise":0,"bound":0,"optimal":true}}"#, point(kept), point(kept));
    assert_eq!(serde_json::from_str::<SparsityPlan>(&plan(3)).unwrap().kept(), 6);
    assert!(serde_json::from_str::<SparsityPlan>(&plan(u64::MAX)).is_err());

    let choice = |bytes, error| Choice { label: "x".into(), bytes, error };
    let candidate = Candidate::new("w", vec![choice(9, 0.5), choice(3, 1.0)]).unwrap();
    let allocation = lapidary::quant::allocate(&[candidate], Budget::Bytes(5)).unwrap();
    assert_eq!(again(&allocation), allocation);
    let json = serde_json::to_string(&allocation).unwrap();
    let odd = r#""better":{"label":"x","bytes":1,"error":0.5}"#;
    assert!(json.contains(r#""better":{"label":"x","bytes":9,"error":0.5}"#), "{json}");
    let odd: Allocation =
        serde_json::from_str(&json.replace(r#""better":{"label":"x","bytes":9,"error":0.5}"#, odd)).unwrap();
    assert!(odd.to_string().contains("(+0 bytes"), "{odd}");

    for norm in [None, Some(0.5), Some(f64::INFINITY)] {
        let outcome = Outcome { skipped: norm.is_none(), norm };
        assert_eq!(again(&outcome), outcome);
    }
}

#[test]
fn a_slimming_is_told() {
    use lapidary::slim::{Dense, GroupPlan, GroupReport, Importance, Input, Plan, SlimReport, Topology};
    use std::collections::BTreeMap;
    let (w1, w2): (Vec<f32>, Vec<f32>) = ((0..32).map(|i| (i as f32).sin()).collect(), vec![0.5; 16]);
    let weights =
        BTreeMap::from([("a", TensorRef::new(&w1, &[8, 4]).unwrap()), ("b", TensorRef::new(&w2, &[2, 8]).unwrap())]);
    let mut model = Topology::builder(weights.iter().map(|(name, tensor)| (*name, tensor.shape()))).unwrap();
    let x = model.add("x", Input::new(&[4], 0), []).unwrap();
    let x = model.add("fc1", Dense::new("a"), [x]).unwrap();
    let x = model.add("fc2", Dense::new("b"), [x]).unwrap();
    model.output(x).unwrap();
    let topology = model.build().unwrap();
    let importance = Importance::of(&topology, &weights).unwrap();
    let keep: Keep = serde_json::from_str(r#"{"target":{"ratio":0.5}}"#).unwrap();
    let plan = Plan::new(&topology, &weights, &importance, &keep).unwrap();
    let groups: Vec<GroupPlan> = again(&plan.groups().to_vec());
    assert_eq!(groups, plan.groups());
    let report = plan.apply(&weights).unwrap().report;
    assert_eq!(again::<SlimReport>(&report), report);
    let odd = r#"{"name":"g","before":1,"requested":1,"after":9,"constant":0,"unread":0,"held":0,"frozen":null}"#;
    assert_eq!(serde_json::from_str::<GroupReport>(odd).unwrap().approximated(), 0);
}

#[cfg(any(feature = "onnx", feature = "safetensors", feature = "gguf"))]
mod compress {
    use super::{again, written};
    use lapidary::compress::{Activations, Budget, Form, Pruning, Recipe, Report};
    use lapidary::prune::Random;

    #[test]
    fn recipes_are_written_as_their_fields() {
        written(
            &Recipe::new().with_bits(4).unwrap().with_group(32).unwrap().with_form(Form::MatMulNBits).keep(["head"]),
            r#"{"bits":4,"group_size":32,"symmetric":false,"form":"matmul_nbits","pruning":null,"budget":null,"histograms":false,"activations":null,"keep":["head"],"only":[],"min_elements":1024,"slimming":null}"#,
        );
        let pruning = Pruning::n_of_m(2, 4).unwrap().globally();
        written(&pruning, r#"{"amount":{"n_of_m":{"keep":2,"of":4}},"globally":true,"sparse_initializers":false}"#);
        let recipe = Recipe::new().with_bits(8).unwrap().with_pruning(pruning).with_budget(Budget::Error(0.1)).unwrap();
        let recipe = recipe.with_activations(Activations::Dynamic).with_histograms().symmetric();
        written(
            &recipe,
            r#"{"bits":8,"group_size":null,"symmetric":true,"form":"auto","pruning":{"amount":{"n_of_m":{"keep":2,"of":4}},"globally":true,"sparse_initializers":false},"budget":{"error":0.1},"histograms":true,"activations":"dynamic","keep":[],"only":[],"min_elements":1024,"slimming":null}"#,
        );
        written(
            &Pruning::sparsity(0.5).unwrap().sparse_initializers(),
            r#"{"amount":{"sparsity":0.5},"globally":false,"sparse_initializers":true}"#,
        );
        for (budget, json) in [
            (Budget::File(5), r#"{"file":5}"#),
            (Budget::Weights(5), r#"{"weights":5}"#),
            (Budget::Error(0.5), r#"{"error":0.5}"#),
        ] {
            written(&budget, json);
        }
        assert!(
            serde_json::from_str::<Budget>(r#"{"error":-1}"#)
                .unwrap_err()
                .to_string()
                .starts_with("budget of error is -1")
        );
        for (form, json) in [(Form::Auto, r#""auto""#), (Form::Dequantize, r#""dequantize""#)] {
            written(&form, json);
        }
        assert_eq!(serde_json::from_str::<Recipe>("{}").unwrap(), Recipe::new());
        #[cfg(not(feature = "rten"))]
        {
            let error = serde_json::from_str::<Recipe>(r#"{"slimming":{"target":{"ratio":0.5}}}"#).unwrap_err();
            assert!(
                error.to_string().starts_with("slimming is asked for, must be none, without the feature `rten`"),
                "{error}"
            );
        }
        for (bad, why) in [
            (r#"{"bits":3}"#, "bits is 3, must be 2, 4 or 8"),
            (r#"{"group_size":8}"#, "group size is 8"),
            (r#"{"budget":{"error":-1}}"#, "budget of error is -1"),
            (r#"{"pruning":{"amount":{"sparsity":1.5}}}"#, "sparsity is 1.5"),
        ] {
            let error = serde_json::from_str::<Recipe>(bad).unwrap_err().to_string();
            assert!(error.starts_with(why), "{bad}: {error}");
        }
        let by_chance = Pruning::sparsity(0.5).unwrap().by(Random::new(1));
        assert!(serde_json::to_string(&by_chance).unwrap_err().to_string().contains("criterion"));
        assert_eq!(again(&Report::default()), Report::default());
        let kept = r#"{"tensors":[{"name":"b","shape":[2],"operators":[],"outcome":{"Err":"small"},"bits":null,"bytes_before":8,"bytes_after":8,"zeros":null,"histogram":null,"sqnr_db":null,"max_abs":null,"bound":null}],"activations":[],"notes":[],"bytes_before":8,"bytes_after":8,"relative_error":null}"#;
        let kept: Report = serde_json::from_str(kept).unwrap();
        let tensor = &kept.tensors[0];
        assert_eq!((tensor.sqnr_db, tensor.max_abs, tensor.bound, kept.relative_error), (None, None, None, None));
        assert_eq!(again(&kept), kept);
    }

    #[cfg(feature = "safetensors")]
    #[test]
    fn what_was_done_to_a_file_comes_back() {
        use lapidary::{compress, format::safetensors::Convention};
        use std::{fs, ops::ControlFlow};
        let header = r#"{"w":{"dtype":"F32","shape":[64,64],"data_offsets":[0,16384]}}"#;
        let numbers = (0..64 * 64).flat_map(|i| (i as f32).sin().to_le_bytes());
        let file: Vec<u8> =
            (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(numbers).collect();
        let name = |which| std::env::temp_dir().join(format!("lapidary-serde-{}-{which}", std::process::id()));
        let (large, small) = (name("large.safetensors"), name("small.safetensors"));
        fs::write(&large, file).unwrap();
        let recipe: Recipe = serde_json::from_str(r#"{"bits":4,"group_size":32,"histograms":true}"#).unwrap();
        let go_on = |_: compress::Progress<'_>| ControlFlow::Continue(());
        let report = compress::safetensors(&large, &small, &recipe, Convention::Lapidary, &go_on).unwrap();
        assert!(report.tensors[0].outcome.is_ok() && report.tensors[0].histogram.is_some());
        assert_eq!(again(&report), report);
        for path in [large, small] {
            fs::remove_file(path).unwrap();
        }
    }

    #[cfg(feature = "rten")]
    #[test]
    fn what_differs_comes_back_even_where_there_is_no_number() {
        use lapidary::compress::{SlimmedReport, Verification};
        let json = r#"{"outputs":[{"name":"y","shape":[1,2],"max_abs":"inf","relative":"inf","cosine":"nan","non_finite":2,"rows":1,"changed":[{"sample":0,"row":0,"original":1,"compressed":0}]}],"samples":1,"runtime":"rten","expanded_original":[],"expanded_compressed":["w"]}"#;
        let read: Verification = serde_json::from_str(json).unwrap();
        assert!(read.outputs[0].cosine.is_nan() && read.max_relative() == f64::INFINITY);
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
        let odd: Verification = serde_json::from_str(&json.replace(r#""rows":1,"c"#, r#""rows":0,"c"#)).unwrap();
        assert_eq!((odd.outputs[0].argmax_agreement(), odd.to_string().contains("0 of 0")), (1.0, true));
        assert_eq!(again(&SlimmedReport::default()), SlimmedReport::default());
    }

    #[cfg(feature = "rten")]
    #[test]
    fn inputs_that_follow_from_a_seed_are_written() {
        use lapidary::compress::{Feed, Inputs, RangeMethod, Ranking, Slimming};
        let inputs =
            r#"{"seed":7,"samples":3,"batch":2,"integers":2,"sizes":{"n":4},"runtime":"rten","limit":2147483648}"#;
        let random = Inputs::random(7).with_samples(3).with_batch(2).with_size("n", 4);
        written(&random, inputs);
        let slimming = Slimming::ratio(0.25, random.clone()).unwrap().with_ranking(Ranking::Magnitude);
        written(
            &slimming.with_multiple(8).unwrap().with_blocks_dropped(1),
            &format!(
                r#"{{"target":{{"ratio":0.25}},"inputs":{inputs},"multiple":8,"ranking":"magnitude","blocks_dropped":1,"repair":null}}"#
            ),
        );
        let fixed = Activations::Static(random, RangeMethod::Percentile(99.9));
        assert_eq!(serde_json::to_string(&fixed).unwrap(), format!(r#"{{"static":[{inputs},{{"percentile":99.9}}]}}"#));
        assert_eq!(again(&fixed), fixed);
        for (method, json) in [
            (RangeMethod::MinMax, r#""min_max""#),
            (RangeMethod::Percentile(100.0), r#"{"percentile":100.0}"#),
            (RangeMethod::Mse, r#""mse""#),
            (RangeMethod::MovingAverage(0.5), r#"{"moving_average":0.5}"#),
        ] {
            written(&method, json);
        }
        written(&Activations::Dynamic, r#""dynamic""#);
        for (ranking, name) in [
            (Ranking::Magnitude, "magnitude"),
            (Ranking::Variance, "variance"),
            #[cfg(feature = "linalg")]
            (Ranking::Reconstruction, "reconstruction"),
        ] {
            written(&ranking, &format!("{name:?}"));
        }
        written(
            &Slimming::params(0.25, Inputs::random(7)).unwrap(),
            r#"{"target":{"params":0.25},"inputs":{"seed":7,"samples":1,"batch":1,"integers":2,"sizes":{},"runtime":"rten","limit":2147483648},"multiple":1,"ranking":"variance","blocks_dropped":0,"repair":null}"#,
        );
        for (bad, why) in [
            (r#"{"percentile":-5}"#, "percentile is -5"),
            (r#"{"percentile":100.5}"#, "percentile is 100.5"),
            (r#"{"moving_average":0}"#, "averaging constant is 0"),
            (r#"{"moving_average":1.5}"#, "averaging constant is 1.5"),
        ] {
            let error = serde_json::from_str::<RangeMethod>(bad).unwrap_err().to_string();
            assert!(error.starts_with(why), "{bad}: {error}");
        }
        for (bad, why) in [
            (r#""samples":0"#, "samples is 0"),
            (r#""batch":0"#, "size of an input is 0"),
            (r#""sizes":{"n":0}"#, "size of an input is 0"),
            (r#""sizes":{"n":1,"n":2}"#, r#"the name "n" is given twice"#),
            (r#""integers":0"#, "end of the integers is 0"),
            (r#""integers":-3"#, "end of the integers is -3"),
        ] {
            let error = serde_json::from_str::<Inputs>(&format!(r#"{{"seed":7,{bad}}}"#)).unwrap_err().to_string();
            assert!(error.starts_with(why), "{bad}: {error}");
        }
        #[cfg(not(feature = "linalg"))]
        {
            let repaired = format!(r#"{{"target":{{"ratio":0.5}},"inputs":{inputs},"repair":0.01}}"#);
            let error = serde_json::from_str::<Slimming>(&repaired).unwrap_err().to_string();
            assert!(error.starts_with("repair is asked for, must be none, without the feature `linalg`"), "{error}");
        }
        #[cfg(feature = "linalg")]
        {
            let repaired = again(&Slimming::ratio(0.5, Inputs::random(7)).unwrap().with_repair(0.01).unwrap());
            assert!(serde_json::to_string(&repaired).unwrap().ends_with(r#""repair":0.01}"#));
        }
        let given = Inputs::given([vec![("x".to_string(), Feed::f32(&[1], vec![0.5]).unwrap())]]);
        assert!(serde_json::to_string(&given).unwrap_err().to_string().contains("inputs is samples"));
        let bad = format!(r#"{{"target":{{"params":1.5}},"inputs":{inputs}}}"#);
        assert!(serde_json::from_str::<Slimming>(&bad).unwrap_err().to_string().starts_with("share is 1.5"));
    }
}
