import json


# One word is one count; what is returned must be plain JSON.
def apply(input):
    text = input["text"] if isinstance(input, dict) else input
    counts = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    return json.loads(json.dumps(counts))
