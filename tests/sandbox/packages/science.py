"""Packages for arrays and tables, and compilers."""

ARRAYS = {
    "numpy": """
import numpy as np
a = np.random.rand(400, 400)
assert np.linalg.inv(a).shape == a.shape
m = np.memmap('m', dtype='f8', mode='w+', shape=(1000,))
m[:] = 1
m.flush()
""",
    "scipy": """
from scipy import optimize, fft
assert abs(optimize.brentq(lambda x: x * x - 2, 0, 2) - 2 ** 0.5) < 1e-09
""",
    "pandas": """
import pandas as pd
d = pd.DataFrame({'k': [1, 1, 2], 'v': [1, 2, 3]})
d.to_csv('d.csv')
assert pd.read_csv('d.csv').groupby('k').v.sum().tolist() == [3, 3]
""",
    "scikit-learn": """
from sklearn.ensemble import RandomForestClassifier as F
from sklearn.datasets import load_iris
x, y = load_iris(return_X_y=True)
assert F(10, n_jobs=2).fit(x, y).score(x, y) > 0.9
""",
    "joblib": """
import joblib
assert joblib.Parallel(2)((joblib.delayed(abs)(-i) for i in range(4))) == [0, 1, 2, 3]
""",
    "matplotlib": """
import matplotlib
matplotlib.use('Agg')
from matplotlib import pyplot as p
p.plot([1, 2])
p.savefig('p.png')
p.savefig('p.pdf')
""",
    "pillow": """
from PIL import Image
Image.new('RGB', (64, 64), 'red').resize((8, 8)).save('i.jpg')
assert Image.open('i.jpg').size == (8, 8)
""",
    "networkx": """
import networkx as nx
assert nx.shortest_path(nx.path_graph(5), 0, 4) == [0, 1, 2, 3, 4]
""",
    "sympy": """
import sympy
x = sympy.Symbol('x')
assert sympy.integrate(2 * x, x) == x ** 2
""",
}

TABLES = {
    "polars": """
import polars as pl
pl.DataFrame({'a': [1, 2]}).write_parquet('t.parquet')
assert pl.scan_parquet('t.parquet').select(pl.col('a').sum()).collect().item() == 3
""",
    "pyarrow": """
import pyarrow as pa, pyarrow.parquet as pq
pq.write_table(pa.table({'a': [1, 2]}), 'a.parquet')
assert pq.read_table('a.parquet', memory_map=True).num_rows == 2
""",
    "duckdb": """
import duckdb
c = duckdb.connect('d.duckdb')
assert c.execute('select sum(range) from range(100000)').fetchall()[0][0] == 4999950000
c.close()
""",
    "sqlalchemy": """
import sqlalchemy as s
e = s.create_engine('sqlite:///s.db')
assert e.connect().execute(s.text('select 1')).scalar() == 1
""",
    "openpyxl": """
import openpyxl
w = openpyxl.Workbook()
w.active.append([1, 2])
w.save('w.xlsx')
assert openpyxl.load_workbook('w.xlsx').active['B1'].value == 2
""",
    "h5py": """
import h5py
f = h5py.File('f.h5', 'w')
f['x'] = [1, 2]
f.close()
assert h5py.File('f.h5')['x'][1] == 2
""",
    "lmdb": """
import lmdb
e = lmdb.open('lm', map_size=1 << 20)
t = e.begin(write=True)
t.put(b'k', b'v')
t.commit()
assert e.begin().get(b'k') == b'v'
""",
}

COMPILERS = {
    "numba": """
import numba
f = numba.njit(parallel=True)(lambda n: sum([i for i in range(n)]))
assert f(100) == 4950
""",
    "cffi": """
import cffi
f = cffi.FFI()
f.cdef('int getpid(void);')
import os
assert f.dlopen(None).getpid() == os.getpid()
""",
    "cython": """
import Cython.Compiler.Main as m
open('c.pyx', 'w').write('cpdef int f(): return 1')
m.compile('c.pyx')
import os
assert os.path.exists('c.c')
""",
    "ziglang": """
import subprocess, sys, os
open('h.c', 'w').write('#include <stdio.h>\\nint main(){puts("hi");}')
os.environ['HOME'] = os.environ['ZIG_GLOBAL_CACHE_DIR'] = '/tmp'
subprocess.run([sys.executable, '-m', 'ziglang', 'cc', 'h.c', '-o', 'h'], check=True)
assert subprocess.check_output(['./h']) == b'hi\\n'
""",
    "numexpr": """
import numexpr, numpy
a = numpy.arange(1000000.0)
assert numexpr.evaluate('sum(a * 2)') > 0
""",
}
