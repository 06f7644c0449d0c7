def apply(input):
    if isinstance(input, (bytes, bytearray)):
        return bytes(255 - byte for byte in bytearray(input))
    return {"type": type(input).__name__}
