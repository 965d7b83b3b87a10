//! Slimming: the slim model computes what the masked one does, whatever the model.

mod digits;
mod folds;
mod interpreter;
mod nodes;
mod random;
mod rescnn;
mod traps;
