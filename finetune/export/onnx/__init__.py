"""ONNX files, for onnxruntime on servers, phones and in browsers."""
