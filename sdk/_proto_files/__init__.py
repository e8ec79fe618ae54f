"""Facts about proto files that codegen and the runtime share. It needs protobuf only."""
