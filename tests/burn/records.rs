//! State in burn's records.

use super::*;
use burn_optim::{AdamConfig, ModuleOptimizer};
use lapidary::{
    ErrorKind,
    backend::burn::{Adapter, AnyOptimizer, Route},
    optim::{Adafactor, Adam, AdamW, Compact, Ema, NAdam, Sgd},
};

fn steps(burns: &mut ModuleOptimizer, mut net: Net, times: std::ops::Range<u32>) -> Net {
    for t in times {
        let (all, _) = gradients::<f32>(&net, t);
        net = burns.step(0.01, net, all);
    }
    net
}

/// Three steps, saved; two more, at once and after loading module and optimizer.
fn resumes(optimizer: impl AnyOptimizer, routes: [Route; 2]) {
    let device = Device::flex().autodiff();
    let net = net::<f32>(&device);
    let adapter = |route| Adapter::new(optimizer.clone()).with_route(route);
    let (mut burns, watch) = adapter(routes[0]).for_module(&net);
    let net = steps(&mut burns, net, 0..3);
    watch.check().unwrap();
    let (saved, state) = (net.clone().into_record().into_bytes().unwrap(), burns.into_bytes().unwrap());
    let straight = weights::<f32>(&steps(&mut burns, net, 3..5));

    let fresh = super::net::<f32>(&device);
    let net = fresh.load_record(burn_core::store::ModuleRecord::from_bytes(saved).unwrap());
    let (burns, watch) = adapter(routes[1]).for_module(&net);
    let mut burns = burns.from_bytes(state).unwrap();
    let resumed = weights::<f32>(&steps(&mut burns, net, 3..5));
    watch.check().unwrap();
    let same = |i: usize| bits(&straight[i]) == bits(&resumed[i]);
    if routes[0] == routes[1] {
        assert!((0..3).all(same));
    } else {
        let pairs = straight.iter().flatten().zip(resumed.iter().flatten());
        pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{a} and {b}"));
    }
}

#[test]
fn a_run_goes_on_to_the_bit() {
    let host = [Route::Auto; 2];
    resumes(Sgd::new(0.1).unwrap(), host);
    resumes(Sgd::new(0.1).unwrap().with_momentum(0.9).unwrap(), host);
    resumes(AdamW::new(0.1).unwrap(), host);
    resumes(Adam::new(0.1).unwrap().with_amsgrad(), host);
    resumes(NAdam::new(0.1).unwrap(), host); // with a scalar
    resumes(Adafactor::new(0.1).unwrap(), host); // with slots of other shapes
    resumes(Compact::eight_bit(AdamW::new(0.1).unwrap()), host);
    resumes(Compact::bf16(AdamW::new(0.1).unwrap()), host);
    resumes(Ema::new(AdamW::new(0.1).unwrap(), 0.9).unwrap(), host);
    resumes(AdamW::new(0.1).unwrap(), [Route::Operations; 2]);
}

#[test]
fn a_run_goes_on_elsewhere() {
    resumes(AdamW::new(0.1).unwrap(), [Route::Auto, Route::Operations]);
    resumes(AdamW::new(0.1).unwrap(), [Route::Operations, Route::Auto]);
    resumes(Sgd::new(0.1).unwrap().with_nesterov(0.9).unwrap(), [Route::Operations, Route::Host]);
}

/// What the next step says to the record of another optimizer; nothing moves.
fn refuses(optimizer: impl AnyOptimizer, route: Route, record: burn_core::tensor::Bytes, net: &Net) -> String {
    let (burns, watch) = Adapter::new(optimizer).with_route(route).for_module(net);
    let mut burns = burns.from_bytes(record).unwrap();
    let before = weights::<f32>(net);
    let moved = steps(&mut burns, net.clone(), 0..1);
    assert_eq!(weights::<f32>(&moved), before);
    let error = watch.take_error().unwrap();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::State, Some("first.weight")), "{error}");
    error.to_string()
}

#[test]
fn records_of_other_optimizers_are_refused() {
    let device = Device::flex().autodiff();
    let net = net::<f32>(&device);
    let adamw = AdamW::new(0.1).unwrap();
    let (mut ours, _) = Adapter::new(adamw).for_module(&net);
    let net = steps(&mut ours, net, 0..1);
    let mut burns = AdamConfig::new().init();
    let net = steps(&mut burns, net, 0..1);

    for route in [Route::Auto, Route::Operations] {
        let theirs = refuses(adamw, route, burns.into_bytes().unwrap(), &net);
        assert!(theirs.contains("not of an optimizer of this crate"), "{theirs}");
        let other = refuses(adamw.with_amsgrad(), route, ours.into_bytes().unwrap(), &net);
        assert!(other.ends_with("another name, or other slots"), "{other}");
        refuses(Adam::new(0.1).unwrap(), route, ours.into_bytes().unwrap(), &net);
    }
    // The same names, another form.
    let compact = Compact::eight_bit(adamw);
    let (mut eight, _) = Adapter::new(compact).for_module(&net);
    let net = steps(&mut eight, net, 0..1);
    refuses(adamw, Route::Auto, eight.into_bytes().unwrap(), &net);
    refuses(adamw, Route::Operations, eight.into_bytes().unwrap(), &net);
    refuses(compact, Route::Auto, ours.into_bytes().unwrap(), &net);
}
