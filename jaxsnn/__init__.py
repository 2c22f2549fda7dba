"""Turn a trained network into a fast spiking one.

network description, ANN       jaxsnn.network, jaxsnn.ann, jaxsnn.architectures
conversion                     jaxsnn.convert, jaxsnn.thresholds, jaxsnn.weights
population simulator           jaxsnn.neuron, jaxsnn.simulate
search                         jaxsnn.cost, jaxsnn.codec, jaxsnn.search
commands                       python -m jaxsnn.optimize, jaxsnn.evaluate, jaxsnn.train
"""
