#!/usr/bin/env bash
# Makes the corpus of each target: small real files, a byte that says which before each.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p fuzz/corpus/{bytes,files,compress}
add() { { printf "\\x$2"; cat "$3"; } >"fuzz/corpus/$1/$(basename "$3").$2"; }
for file in tests/fixtures/*.safetensors; do add bytes 00 "$file"; done
for file in $(find tests/fixtures -name '*.gguf'); do add bytes 01 "$file"; done
for file in $(find tests/fixtures -name '*.np[yz]'); do add bytes 02 "$file"; done
for file in $(find tests/fixtures -name '*.h5' -o -name '*.keras'); do add bytes 04 "$file"; done
for file in $(find tests/fixtures -name '*.tflite'); do add bytes 05 "$file"; done
for file in $(find tests/fixtures -name 'model.onnx' | head -20) tests/fixtures/digits_rescnn.onnx; do
  name=$(dirname "$file" | tr / _)
  cp "$file" "/tmp/$name.onnx"
  add files 00 "/tmp/$name.onnx"
  for how in 00 01 02 41 81; do add compress "$how" "/tmp/$name.onnx"; done
  rm "/tmp/$name.onnx"
done
for file in tests/fixtures/*.pt tests/fixtures/*.pth; do add files 01 "$file"; done
ls fuzz/corpus/* | wc -l
