// Calls an algorithm with npm's client, in every form of input and version that it has.

const algorithmia = require("algorithmia");

const { API_ADDRESS, API_KEY, ALGORITHM, VERSIONS } = process.env;
const client = algorithmia.client(API_KEY, API_ADDRESS);

const answer = (name, input, method = "pipe") =>
  new Promise((resolve) => client.algo(name)[method](input).then(resolve));

// What a call answers, or its error.
const resultOf = async (name, input, method) => {
  const response = await answer(name, input, method);
  try {
    const result = response.get();
    return Buffer.isBuffer(result) ? result.toString("hex") : result;
  } catch (error) {
    return `error: ${error}`;
  }
};

const main = async () => {
  const output = {
    json: await resultOf(ALGORITHM, { a: [1, null] }),
    text: await resultOf(ALGORITHM, "text"),
    binary: await resultOf(ALGORITHM, Buffer.from([0, 255])),
    written: await resultOf(ALGORITHM, '{"b": 2}', "pipeJson"),
    types: (await Promise.all([{}, "text"].map((input) => answer(ALGORITHM, input)))).map(
      (response) => response.metadata.content_type,
    ),
    raised: await resultOf(ALGORITHM, "raise"),
    unknown: await resultOf(`${ALGORITHM}Nowhere`, "x"),
    status: (await answer(`${ALGORITHM}Nowhere`, "x")).status,
    versions: {},
  };
  for (const version of VERSIONS.split(",")) {
    output.versions[version] = await resultOf(`${ALGORITHM}/${version}`, "x");
  }
  output.environment = await new Promise((resolve) => {
    // Without arguments the client takes the address and the key from the environment.
    process.env.ALGORITHMIA_API = API_ADDRESS;
    process.env.ALGORITHMIA_API_KEY = API_KEY;
    algorithmia.algo(ALGORITHM).pipe("x").then((response) => resolve(response.get()));
  });
  output.hosted = await new Promise((resolve) =>
    client.file("data://some/file").getString((body) => resolve(body.error.message)),
  );
  console.log(JSON.stringify(output));
};

main();
