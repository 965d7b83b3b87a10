//! Formats that are read from memory. The first byte says which, the rest is the file.
#![no_main]

use lapidary::format::{
    file::{Bytes, TensorFile},
    gguf::Gguf,
    keras::Keras,
    numpy::NumpyFile,
    packed,
    safetensors::{Quantized, SafeTensors},
    tflite::TfLite,
};
use libfuzzer_sys::fuzz_target;

fn read(file: &dyn TensorFile) {
    for index in 0..file.tensors().len() {
        let _ = file.data(index);
        let _ = file.to_f32(index);
    }
    let quantized = Quantized::of(file);
    let names: Vec<String> = quantized.names().map(|(name, _)| name.to_string()).collect();
    names.iter().for_each(|name| drop(quantized.read(name)));
}

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(data);
    match which % 6 {
        0 => SafeTensors::decode(bytes).iter().for_each(|file| read(file)),
        1 => Gguf::from_bytes(bytes).iter().for_each(|file| read(file)),
        2 => NumpyFile::from_bytes(bytes).iter().for_each(|file| read(file)),
        3 => drop(packed::decode(data)),
        4 => Keras::from_bytes(bytes).iter().for_each(|file| read(file)),
        _ => TfLite::from_bytes(bytes).iter().for_each(|file| read(file)),
    }
});
