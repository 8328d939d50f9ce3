"""ONNX files of encoders, for onnxruntime on servers, phones and in browsers."""
