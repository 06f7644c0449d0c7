import Algorithmia
import numpy as np
import yaml

client = Algorithmia.client()


def apply(input):
    matrix = np.array(input, dtype=np.float)
    return {"determinant": round(float(np.linalg.det(matrix)), 6), "numpy": np.__version__, "yaml": yaml.__version__}
